import { existsSync, readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";

const page = readFileSync("docs/architecture.md", "utf8");
const rows = [...page.matchAll(/^\| `([\w.-]+)\/?` +\|.*\| +(.*?) *\|$/gm)].map(
  ([, folder, files]) => ({ folder: folder!, files: files!.match(/[\w/-]+\.ts/g) ?? [] }),
);

test("docs/architecture.md has a row for everything in src", () => {
  const rooms = readdirSync("src").filter((name) => name !== "index.ts");
  expect(rows.map(({ folder }) => folder).sort()).toEqual(rooms.sort());
});

test("every file that it says to start reading at is there", () => {
  for (const { folder, files } of rows)
    for (const file of files) expect(existsSync(`src/${folder}/${file}`), `${folder}/${file}`).toBe(true); // prettier-ignore
});

test("every page that it links to is there", () => {
  for (const [, path] of page.matchAll(/\]\(([^)#]+)[^)]*\)/g))
    expect(existsSync(`docs/${path!}`), path).toBe(true);
});
