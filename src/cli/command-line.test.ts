import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LorikeetError } from "../errors.ts";
import { Captured, lorikeet } from "../../test/support/command.ts";
import { COMMANDS } from "./commands.ts";
import { EXIT_CODES } from "./context.ts";
import { reportFailure } from "./failure.ts";

describe("lorikeet", () => {
  test("alone shows the commands", async () => {
    const { code, out, err } = await lorikeet();
    expect([code, err]).toEqual([EXIT_CODES.ok, ""]);
    for (const { name } of COMMANDS) expect(out).toContain(`  ${name}`);
  });

  test("--version prints the package's", async () => {
    expect((await lorikeet("--version")).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test.each(COMMANDS.map(({ name }) => name))("%s --help has examples", async (name) => {
    const { code, out } = await lorikeet(name, "--help");
    expect(code).toBe(EXIT_CODES.ok);
    expect(out).toMatch(/\nExamples?:\n {2}lorikeet /);
    expect(out).toContain("--debug");
    expect((await lorikeet("help", name)).out).toBe(out);
  });

  test("an unknown command or option is a usage error that names the nearest", async () => {
    expect(await lorikeet("doctr")).toEqual({
      code: EXIT_CODES.usage,
      out: "",
      err: "error[usage]: Unknown command 'doctr'\nhint: Did you mean doctor?\n",
    });
    const { code, err } = await lorikeet("doctor", "--jsn");
    expect(code).toBe(EXIT_CODES.usage);
    expect(err).toContain("Unknown option '--jsn'\nhint: Did you mean --json?\n");
  });

  test.each([
    ["help", "doctr"],
    ["doctr", "--help"],
  ])("%s %s is an unknown command, no general help", async (...argv) => {
    const { code, out, err } = await lorikeet(...argv);
    expect([code, out]).toEqual([EXIT_CODES.usage, ""]);
    expect(err).toBe("error[usage]: Unknown command 'doctr'\nhint: Did you mean doctor?\n");
  });

  test.each([
    [
      ["train", "--packing=true"],
      "--packing is a switch without a value: write --packing, or --no-packing",
    ],
    [
      ["data", "preview", "x", "--packing=true"],
      "--packing is a switch without a value: write --packing",
    ],
    [["train", "--lr", "1e-4"], "Did you mean --learning-rate?"],
    [["train", "--batch_size=4"], "Did you mean --per-device-train-batch-size?"],
    [["train", "--epochs", "3"], "Did you mean --num-train-epochs?"],
    [["train", "--rank", "8"], "Did you mean --r?"],
    [["train", "--alpha", "8"], "Did you mean --lora-alpha?"],
    [["train", "--learning-rte", "8"], "Did you mean --learning-rate?"],
  ])("%j: the hint says what to write", async (argv, hint) => {
    const { code, err } = await lorikeet(...argv);
    expect(code).toBe(EXIT_CODES.usage);
    expect(err).toContain("error[usage]: Unknown option '--");
    expect(err).toContain(`hint: ${hint}\n`);
  });

  test("generate refuses options that would be passed over in silence, or leave nothing", async () => {
    const mixed = await lorikeet("generate", "--prompt", "a", "--system", "b");
    expect([mixed.code, mixed.err]).toEqual([EXIT_CODES.usage, expect.stringContaining("Give --system with --chat")]); // prettier-ignore
    const { code, out, err } = await lorikeet("generate", "--prompt", "a", "--stop", "");
    expect([code, out]).toEqual([EXIT_CODES.usage, ""]);
    expect(err).toContain('stop: expected texts of at least one character, got ""');
  });

  test.each([
    ["--steps", "0", "a whole number of at least 1."],
    ["--count", "1.5", "a whole number of at least 1."],
    ["--guidance", "-1", "a number of at least 0."],
    ["--seed", "-1", "a whole number of at least 0."],
    ["--eta", "2", "a number from 0 to 1."],
  ])("imagine refuses %s %s, with a hint", async (flag, value, expected) => {
    const { code, err } = await lorikeet("imagine", "--prompt", "a", flag, value);
    expect(code).toBe(EXIT_CODES.usage);
    expect(err).toContain(
      `'${value}' is invalid. Expected ${expected}\nhint: \`lorikeet imagine --help\``,
    );
  });

  test.each([
    "test/golden/lora/adapter",
    "test/fixtures/diffusion/lora/sd1-attention/kohya.safetensors",
  ])("convert refuses --dtype for an adapter: %s", async (source) => {
    const { code, err } = await lorikeet("convert", source, "--to", "peft", "--dtype", "f16", "-o", join(tmpdir(), "no")); // prettier-ignore
    expect([code, err]).toEqual([EXIT_CODES.usage, expect.stringContaining(`--dtype is for models, ${source} is an adapter`)]); // prettier-ignore
  });

  test("imagine makes no folder of a name that ends like a picture's", async () => {
    const { code, err } = await lorikeet("imagine", "--prompt", "a", "--out", "cat.jpg");
    expect([code, err]).toEqual([EXIT_CODES.usage, expect.stringContaining("written as PNG")]);
  });

  test("demo removes no run in a folder that was named", async () => {
    const folder = await mkdtemp(join(tmpdir(), "lorikeet-demo-"));
    await writeFile(join(folder, "adapter_config.json"), "{}");
    const { code, err } = await lorikeet("demo", "--output-dir", folder);
    expect(code).toBe(EXIT_CODES.failed);
    expect(err).toContain("error[output-exists]");
    expect(await readdir(folder)).toEqual(["adapter_config.json"]);
    await rm(folder, { recursive: true });
  });

  test("train refuses wrong settings before it does anything, all at once", async () => {
    const { code, out, err } = await lorikeet("train", "--r", "0", "--learning_rate", "fast");
    expect([code, out]).toEqual([EXIT_CODES.usage, ""]);
    expect(err).toContain("error[config-invalid]: Expected `data` to be");
    expect(err).toContain("Expected `r` to be a whole number of at least 1, got 0 (number).");
    expect(err).toContain('Expected `learning_rate` to be a number above 0, got "fast" (string).');
  });

  test("a list's flag may be given several times, and help says what a choice accepts", async () => {
    const { err } = await lorikeet("train", "--data", "no1.jsonl", "--data", "no2.jsonl,no3.jsonl", "--sample-prompts", "Hello, you!", "--sample-prompts", "", "--r", "0"); // prettier-ignore
    expect(err).toContain('got ["Hello, you!",""] (list)');
    const missing = await lorikeet("train", "--data", "no1.jsonl", "--data", "chats.csv", "--output-dir", join(tmpdir(), "no")); // prettier-ignore
    expect(missing.err).toContain("no1.jsonl"); // the last one alone was read
    const { out } = await lorikeet("train", "--help");
    expect(out).toContain("One of constant, constant_with_warmup, linear or cosine.");
    expect(out).toContain("One of auto, cpu, webgpu, cuda or cuda:N.");
    expect(out).not.toContain("One of a ");
  });

  test("usage errors keep the names that were given, and misunderstood settings exit with 2", async () => {
    const { err } = await lorikeet("convert", "storyteller-6m", "--to", "peft", "-o", "x");
    expect(err).toContain("error[usage]: storyteller-6m is no adapter");
    const file = await lorikeet("train", "LICENSE");
    expect([file.code, file.err]).toEqual([EXIT_CODES.usage, expect.stringContaining("config-file")]); // prettier-ignore
    const device = await lorikeet("generate", "--prompt", "a", "--device", "gpu");
    expect([device.code, device.err]).toEqual([EXIT_CODES.usage, expect.stringContaining("unknown-device")]); // prettier-ignore
  });

  test("data preview marks what is trained", async () => {
    const path = "examples/lorikeet-chat.heldout.jsonl";
    const { code, out } = await lorikeet("data", "preview", path, "--count", "1", "--limit", "5");
    expect(code).toBe(0);
    expect(out).toMatch(/^Sample 1 of 5: \d+ tokens, \d+ trained\n<\|im_start\|>user\n/);
    const { err } = await lorikeet("data", "preview", path, "--train-on", "answers");
    expect(err).toContain("Expected `train_on` to be completion, prompt or all");
    const unknown = await lorikeet("data", "preview", path, "--badoption");
    expect(unknown.err).toContain("hint: `lorikeet data preview --help` lists its options");
    const packed = await lorikeet("data", "preview", path, "--packing", "--count", "1");
    expect(packed.out).toMatch(
      /^Row 1 of \d+: \d+ samples, \d+ of 1024 tokens\n── Sample 1: tokens 0 to /,
    );
  });

  test("generate refuses numbers that are none", async () => {
    const { code, err } = await lorikeet("generate", "--max-new-tokens", "few");
    expect(code).toBe(EXIT_CODES.usage);
    expect(err).toContain("'few' is invalid. Expected a number.");
    expect(err).toContain("hint: `lorikeet generate --help` lists its options");
  });

  test.each([
    ["--temperature", "-1", "a number of at least 0."],
    ["--max-new-tokens", "0", "a whole number of at least 1."],
    ["--top-k", "2.5", "a whole number of at least 0."],
    ["--top-p", "7", "a number from 0 to 1."],
    ["--threads", "0", "a whole number of at least 1."],
  ])("generate refuses %s %s", async (flag, value, expected) => {
    const { code, err } = await lorikeet("generate", "--prompt", "Once", flag, value);
    expect(code).toBe(EXIT_CODES.usage);
    expect(err).toContain(`'${value}' is invalid. Expected ${expected}`);
  });

  test("doctor --webgpu says whether there is an adapter, and what to do where there is none", async () => {
    const { out, code } = await lorikeet("doctor", "--webgpu");
    expect(code).toBe(0);
    expect(out).toMatch(/WebGPU +(an adapter that passed|no adapter.*\n +→ install)/);
  });

  test("doctor --json is JSON with a status for each finding", async () => {
    const { out } = await lorikeet("doctor", "--json");
    const { findings } = JSON.parse(out) as { findings: { name: string; status: string }[] };
    expect(findings.map(({ name }) => name)).toContain("ONNX Runtime");
    for (const { status } of findings) expect(status).toMatch(/^(ok|limited|missing)$/);
  });
});

describe("reportFailure", () => {
  function report(
    error: unknown,
    style: { debug?: boolean; json?: boolean } = {},
  ): [number, string] {
    const err = new Captured();
    const context = { out: new Captured(), err, exitCode: 0 };
    const code = reportFailure(error, context, { debug: false, json: false, ...style });
    return [code, err.text];
  }

  test("shows message and hint, the stack only with --debug", () => {
    const error = new LorikeetError("lora-targets", "Expected a match, got none", {
      hint: "List them.",
      cause: new Error("the cause"),
    });
    expect(report(error)).toEqual([
      EXIT_CODES.failed,
      "error[lora-targets]: Expected a match, got none\nhint: List them.\n",
    ]);
    const [, text] = report(error, { debug: true });
    expect(text).toMatch(/caused by: Error: the cause\n\s+at /);
  });

  test("with --json is one line of JSON", () => {
    const [, text] = report(new LorikeetError("shape", "Expected 2, got 3"), { json: true });
    expect(JSON.parse(text)).toEqual({ error: { code: "shape", message: "Expected 2, got 3" } });
    expect(text.trim()).not.toContain("\n");
  });

  test("a wrong configuration is a usage error", () => {
    expect(report(new LorikeetError("config-invalid", "…"))[0]).toBe(EXIT_CODES.usage);
  });

  test("an error that nobody foresaw says so", () => {
    const [code, text] = report(new TypeError("x is not a function"));
    expect(code).toBe(EXIT_CODES.failed);
    expect(text).toContain("error: x is not a function\nhint: Lorikeet did not expect this.");
  });
});
