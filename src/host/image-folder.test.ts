import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readImageFolders } from "./image-folder.ts";

/** A folder of files by name. */
async function folderOf(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lorikeet-images-"));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(folder, name, ".."), { recursive: true });
    await writeFile(join(folder, name), text);
  }
  return folder;
}

test("captions come from metadata.jsonl, else from .txt, else from the fallback", async () => {
  const folder = await folderOf({
    "b.png": "",
    "a.JPG": "",
    "sub/c.webp": "",
    "sub/d.png": "",
    "notes.md": "",
    "a.txt": " a cat\n",
    "metadata.jsonl": '{"file_name": "sub/c.webp", "text": "a dog"}\n\n',
    "sub/metadata.jsonl": '{"file_name": "d.png", "text": "a fish", "more": 1}',
  });
  const found = await readImageFolders([folder], "a bird");
  expect(found.map(({ path, caption }) => [path.slice(folder.length + 1), caption])).toEqual([
    ["a.JPG", "a cat"],
    ["b.png", "a bird"],
    ["sub/c.webp", "a dog"],
    ["sub/d.png", "a fish"],
  ]);
});

test("what metadata.jsonl names and is not there is listed too, to be counted as unreadable", async () => {
  const line = '{"file_name": "gone.png", "text": "a cat"}';
  const folder = await folderOf({ "a.png": "", "a.txt": "a dog", "metadata.jsonl": line });
  const found = await readImageFolders([folder], null);
  expect(found.map(({ caption }) => caption)).toEqual(["a dog", "a cat"]);
});

test("images without captions and bad lines are all named", async () => {
  const folder = await folderOf({
    "a.png": "",
    "b.png": "",
    "b.txt": "\n",
    "metadata.jsonl": '{"file_name": "a.png"}\nnot json',
  });
  await expect(readImageFolders([folder], null)).rejects.toMatchObject({
    code: "image-captions",
    message: expect.stringMatching(
      /metadata\.jsonl, line 1.*metadata\.jsonl, line 2.*a\.png.*b\.png/s,
    ) as string,
  });
});

test("a folder without images, and none at all", async () => {
  const folder = await folderOf({ "notes.txt": "" });
  await expect(readImageFolders([folder], "x")).rejects.toMatchObject({ code: "no-images" });
  await expect(readImageFolders([join(folder, "no")], "x")).rejects.toMatchObject({
    code: "file-not-found",
  });
});
