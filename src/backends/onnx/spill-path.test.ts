import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { expect, it } from "vitest";
import { removeStaleSpills, spillPath } from "./spill-path.ts";

it("removes what ended processes of this machine left, and nothing else", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lorikeet-spills-"));
  try {
    const own = spillPath(folder);
    const { pid: ended } = spawnSync(process.execPath, ["--version"]);
    const stale = own.replace(`lorikeet-${process.pid}-`, `lorikeet-${ended}-`);
    const elsewhere = stale.replace(`lorikeet-${ended}-`, `lorikeet-${ended}-other-`);
    const kept = [own, elsewhere, join(folder, `lorikeet-${ended}.weights`)];
    for (const path of [stale, ...kept]) await writeFile(path, "");
    await removeStaleSpills(folder);
    expect(new Set(await readdir(folder))).toEqual(new Set(kept.map((path) => basename(path))));
  } finally {
    await rm(folder, { recursive: true });
  }
});
