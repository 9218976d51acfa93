import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { COMMANDS } from "../src/cli/commands.ts";
import { moduleFile, startTypeScript } from "./support/child.ts";
import { lorikeet } from "./support/command.ts";

const readme = readFileSync("README.md", "utf8");
const blocks = (language: string): string[] =>
  [...readme.matchAll(new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``, "g"))].map(
    (match) => match[1]!,
  );

/** What the README's program runs with here instead, so that it ends soon. */
const SMALLER = [
  ["epochs: 3", "maxSteps: 2"],
  ['live?" }])', 'live?" }], { maxNewTokens: 3 })'],
] as const;

/** Runs `source` in a folder of its own, with this package. */
async function run(folder: string, source: string): Promise<string> {
  const index = pathToFileURL(resolve(moduleFile("index"))).href;
  const file = join(folder, "readme.ts");
  await writeFile(file, source.replace('"lorikeet"', JSON.stringify(index)));
  const { code, out, err } = await startTypeScript(file).ended;
  expect(code, err).toBe(0);
  return out;
}

test("the README's program trains and answers", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lorikeet-readme-"));
  let text = blocks("ts")[0]!;
  for (const [full, small] of [...SMALLER, ["out/pip", join(folder, "out")]] as const) {
    expect(text).toContain(full);
    text = text.replace(full, small);
  }
  expect(await run(folder, text)).toMatch(/^1 \d+\.\d+\n2 \d+\.\d+\n\S/);
  expect(existsSync(join(folder, "out/adapter_model.safetensors"))).toBe(true);
}, 180_000);

test("the README's layer learns, merges within 1e-5 and comes back bit for bit", async () => {
  const [, layer, ...others] = blocks("ts");
  expect(others).toEqual([]);
  const folder = await mkdtemp(join(tmpdir(), "lorikeet-readme-"));
  const [losses = "", distances = ""] = (await run(folder, layer!)).split("\n");
  const [first, last] = losses.split(" ").map(Number);
  expect(last).toBeLessThan(0.9 * first!);
  const [, merged, restored] = /^\[ 32, 128, 512 \] (\S+) (\S+)$/.exec(distances) ?? [];
  expect(Number(merged)).toBeLessThanOrEqual(1e-5);
  expect(Number(merged)).toBeGreaterThan(0); // the adapter is part of the result
  expect(restored).toBe("0");
}, 180_000);

test("every script and command that the README names exists", async () => {
  const { scripts } = JSON.parse(readFileSync("package.json", "utf8")) as {
    scripts: Record<string, string>;
  };
  const named = [...readme.matchAll(/(?:^|`)npm (?:run )?(\w+)/gm)].map((match) => match[1]!);
  expect(named).toEqual(expect.arrayContaining(["demo", "test"]));
  for (const script of named) expect(Object.keys(scripts)).toContain(script);

  const commands = [...readme.matchAll(/npx lorikeet (\w+)([^\n#`]*)/g)];
  expect(commands.length).toBeGreaterThan(4);
  for (const [, name = "", rest = ""] of commands) {
    expect(COMMANDS.map((command) => command.name)).toContain(name);
    const help = (await lorikeet(name, "--help")).out;
    for (const [flag] of rest.matchAll(/--[a-z-]+/g)) expect(help).toContain(flag);
  }
});

test("every file that the README links to is there", () => {
  for (const [, path = ""] of readme.matchAll(/\]\(([^):#]+)\)/g))
    expect(existsSync(path), path).toBe(true);
});
