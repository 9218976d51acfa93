import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import ts from "typescript";
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

test("the README's code has no type errors", async () => {
  // beside the package's own files, where the types of Node.js are found
  const folder = await mkdtemp(join(resolve("node_modules"), ".lorikeet-readme-"));
  try {
    const index = resolve(moduleFile("index"));
    const files = blocks("ts").map((_, i) => join(folder, `${i}.ts`));
    for (const [i, file] of files.entries())
      await writeFile(file, blocks("ts")[i]!.replace('"lorikeet"', JSON.stringify(index)));
    const { options } = ts.parseJsonConfigFileContent(ts.readConfigFile("tsconfig.json", (path) => readFileSync(path, "utf8")).config, ts.sys, "."); // prettier-ignore
    const quick = {
      ...options,
      noEmit: true,
      isolatedDeclarations: false,
      skipLibCheck: true,
      rewriteRelativeImportExtensions: false,
      allowImportingTsExtensions: true,
    };
    const program = ts.createProgram(files, quick);
    const faults = files.flatMap((file) => ts.getPreEmitDiagnostics(program, program.getSourceFile(file))); // prettier-ignore
    expect(faults.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"))).toEqual([]); // prettier-ignore
  } finally {
    await rm(folder, { recursive: true });
  }
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
