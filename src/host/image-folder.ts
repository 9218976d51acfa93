import { readdir, stat } from "node:fs/promises";
import { dirname, extname, join, relative } from "node:path";
import { LorikeetError } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import { asFileError } from "./file-errors.ts";
import { isFile, readText } from "./files.ts";

/** An image file and what is on it. */
export interface CaptionedFile {
  readonly path: string;
  readonly caption: string;
}

const ENDINGS = [".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".tif", ".tiff"];
const METADATA = "metadata.jsonl";
const HINT = `Write ${METADATA} beside the images, a line {"file_name": "01.png", "text": "…"} for each, or 01.txt beside 01.png; or give all of them one caption by instance_prompt.`;

/** Image files in `folder` and below, sorted by path. @throws LorikeetError `file-not-found`, `no-images` */
export async function listImages(folder: string): Promise<string[]> {
  const info = await stat(folder).catch((cause: unknown) => {
    throw asFileError(cause, folder, "readable");
  });
  const names = info.isDirectory() ? await readdir(folder, { recursive: true }) : [];
  const images = names.filter((name) => isImage(name) && !/(^|[\\/])\./.test(name));
  if (images.length === 0)
    throw new LorikeetError(
      "no-images",
      `Expected ${folder} to be a folder of images (${ENDINGS.join(", ")}), found none`,
      { hint: "Give a folder that holds images, or whose subfolders do." },
    );
  return images.sort((a, b) => (a < b ? -1 : 1)).map((name) => join(folder, name));
}

/**
 * The images of `folders` with their captions: of `metadata.jsonl` in the image's folder or one above it, else of the
 * `.txt` file beside it, else `fallback`. Images that `metadata.jsonl` names and that are not there are listed too.
 * @throws LorikeetError `file-not-found`, `no-images`; `image-captions` naming every image without a caption and every
 * bad line
 */
export async function readImageFolders(
  folders: readonly string[],
  fallback: string | null,
): Promise<CaptionedFile[]> {
  const faults: string[] = [];
  const found: CaptionedFile[] = [];
  for (const folder of folders) {
    const images = await listImages(folder);
    const captions = await metadataIn(folder, images, faults);
    for (const path of new Set([...images, ...captions.keys()])) {
      const caption = captions.get(path) ?? (await captionBeside(path)) ?? fallback;
      if (caption === null) faults.push(`${relative(folder, path)} has no caption`);
      else found.push({ path, caption });
    }
  }
  if (faults.length > 0)
    throw faultsError("image-captions", "a caption for every image", faults, HINT);
  return found;
}

function isImage(name: string): boolean {
  return ENDINGS.includes(extname(name).toLowerCase());
}

/** Captions by path, of every metadata.jsonl in `folder` that stands with or above one of `images`. */
async function metadataIn(
  folder: string,
  images: readonly string[],
  faults: string[],
): Promise<Map<string, string>> {
  const captions = new Map<string, string>();
  for (const place of new Set([folder, ...images.map(dirname)])) {
    const file = join(place, METADATA);
    if (!(await isFile(file))) continue;
    for (const [i, line] of (await readText(file)).split(/\r?\n/).entries()) {
      if (line.trim() === "") continue;
      const entry = readEntry(line);
      if (entry) captions.set(join(place, entry.name), entry.text);
      else faults.push(`${relative(folder, file)}, line ${i + 1}: no JSON with file_name and text`);
    }
  }
  return captions;
}

function readEntry(line: string): { name: string; text: string } | undefined {
  try {
    const { file_name: name, text } = JSON.parse(line) as Record<string, unknown>;
    return typeof name === "string" && typeof text === "string" ? { name, text } : undefined;
  } catch {
    return undefined;
  }
}

async function captionBeside(path: string): Promise<string | null> {
  const file = path.slice(0, -extname(path).length) + ".txt";
  if (!(await isFile(file))) return null;
  const text = (await readText(file)).trim();
  return text === "" ? null : text;
}
