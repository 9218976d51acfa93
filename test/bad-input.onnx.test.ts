import { copyFile, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lorikeet } from "./support/command.ts";

const MODEL = "models/storyteller-6m";
let root: string;
let chats: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "lorikeet-bad-input-"));
  chats = await dataFile("chats.jsonl", [{ prompt: "Hello", completion: "Squawk! Good day." }]);
});
afterAll(() => rm(root, { recursive: true, force: true }));

let count = 0;
/** A copy of the embedded model's folder, with `change` made to it. */
async function brokenModel(change: (folder: string) => Promise<void>): Promise<string> {
  const folder = await mkdtemp(join(root, "model-"));
  const files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
  for (const file of files) await copyFile(join(MODEL, file), join(folder, file));
  await change(folder);
  return folder;
}

async function changeConfig(changes: Record<string, unknown>): Promise<string> {
  return brokenModel(async (folder) => {
    const path = join(folder, "config.json");
    const config = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
    await writeFile(path, JSON.stringify({ ...config, ...changes }));
  });
}

/** The model with `change` made to the header of its weights, padded to its old length. */
async function changeHeader(change: (header: string) => string): Promise<string> {
  return brokenModel(async (folder) => {
    const path = join(folder, "model.safetensors");
    const bytes = await readFile(path);
    const length = Number(bytes.readBigUInt64LE());
    const header = change(bytes.toString("utf8", 8, 8 + length)).padEnd(length);
    bytes.write(header, 8, "utf8");
    await writeFile(path, bytes);
  });
}

async function dataFile(name: string, rows: readonly unknown[] | string): Promise<string> {
  const path = join(root, name);
  const text = typeof rows === "string" ? rows : rows.map((row) => JSON.stringify(row)).join("\n");
  await writeFile(path, text);
  return path;
}

/** Trains one step into a new folder. */
function train(...flags: string[]): ReturnType<typeof lorikeet> {
  const output = join(root, `out-${count++}`);
  const given = flags.includes("--data") ? [] : ["--data", chats];
  const rest = ["--max-steps", "1", "--r", "2", "--threads", "1", "--no-report"];
  return lorikeet("train", "--output-dir", output, ...given, ...rest, ...flags);
}

/** Expects that training on it ends with status 1, the error `code` and all of `texts`. */
async function expectError(
  flags: readonly string[],
  code: string,
  ...texts: readonly string[]
): Promise<void> {
  const result = await train(...flags);
  expect(result.err).toContain(`error[${code}]: `);
  for (const text of texts) expect(result.err).toContain(text);
  expect(result.err).not.toContain("    at "); // no stack
  expect([result.code, result.out]).toEqual([1, ""]);
}

describe("a model that is not what it should be", () => {
  test("no such folder", () =>
    expectError(["--model", join(root, "nothing")], "file-not-found", "nothing"));

  test("no weights", async () => {
    const folder = await brokenModel((at) => rm(join(at, "model.safetensors")));
    await expectError(["--model", folder], "missing-weights", "model.safetensors");
  });

  test("truncated weights", async () => {
    const folder = await brokenModel((at) => truncate(join(at, "model.safetensors"), 1_000_000));
    await expectError(["--model", folder], "truncated-file", "model.safetensors");
  });

  test("corrupt weights", async () => {
    const folder = await changeHeader((header) => header.replace("{", "["));
    await expectError(["--model", folder], "corrupt-safetensors", "model.safetensors");
  });

  test("a weight of another shape", async () => {
    const folder = await changeConfig({ intermediate_size: 512 });
    await expectError(
      ["--model", folder],
      "weight-shape",
      "18 faults",
      'mlp.down_proj.weight" is [256, 704], config.json asks for [256, 512]',
    );
  });

  test("a weight that is missing", async () => {
    const folder = await changeConfig({ num_hidden_layers: 7 });
    await expectError(["--model", folder], "missing-weight", "model.layers.6.");
  });

  test("weights of layers that config.json does not have", async () => {
    const folder = await changeConfig({ num_hidden_layers: 5 });
    await expectError(["--model", folder], "unexpected-weight", "9 faults", "model.layers.5.");
  });

  test("sizes that are no whole numbers, or do not fit each other", async () => {
    const zero = await changeConfig({ num_attention_heads: 0, hidden_size: "256" });
    await expectError(["--model", zero], "model-config", 'got hidden_size "256", num_attention_heads 0'); // prettier-ignore
    const uneven = await changeConfig({ num_key_value_heads: 3 });
    await expectError(["--model", uneven], "model-config", "num_key_value_heads 3 does not divide");
  });

  test("an element type that cannot be read", async () => {
    const folder = await changeHeader((header) => header.replace('"BF16"', '"F8_X"'));
    await expectError(["--model", folder], "unsupported-dtype", "F8_X", "BF16");
  });

  test("an unsupported architecture", async () => {
    const folder = await changeConfig({ model_type: "mamba" });
    await expectError(["--model", folder], "unsupported-architecture", "mamba", "llama", "qwen3");
  });

  test("config.json that is no JSON", async () => {
    const folder = await brokenModel((at) => writeFile(join(at, "config.json"), "{"));
    await expectError(["--model", folder], "malformed-json", "config.json");
  });

  test("no tokenizer", async () => {
    const folder = await brokenModel((at) => rm(join(at, "tokenizer.json")));
    await expectError(["--model", folder], "no-tokenizer", "tokenizer.json");
  });

  test("a truncated tokenizer", async () => {
    const folder = await brokenModel((at) => truncate(join(at, "tokenizer.json"), 5000));
    await expectError(["--model", folder], "malformed-json", "tokenizer.json");
  });

  test("a tokenizer of an unknown kind", async () => {
    const folder = await brokenModel((at) =>
      writeFile(join(at, "tokenizer.json"), JSON.stringify({ model: { type: "Telepathy" } })),
    );
    await expectError(["--model", folder], "tokenizer", "tokenizer.json");
  });
});

describe("data that is not what it should be", () => {
  const row = { prompt: "Hello", completion: "Squawk!" };

  test("an empty file", async () => {
    const path = await dataFile("empty.jsonl", "");
    await expectError(["--data", path], "data-empty", path);
  });

  test("malformed rows: each with file, line and reason; --skip-bad-rows counts them", async () => {
    const lines = [JSON.stringify(row), "{oops", JSON.stringify({ question: "?" })].join("\n");
    const path = await dataFile("bad.jsonl", lines);
    await expectError(["--data", path], "data-rows", `${path}:2`, `${path}:3`);
    const skipped = await train("--data", path, "--skip-bad-rows");
    expect(skipped.code, skipped.err).toBe(0);
    expect(skipped.err).toMatch(/warning\[data-skipped\]: .*2 /);
  });

  test("a sample longer than the context is cut and counted", async () => {
    const long = { prompt: "Hello", completion: "tree ".repeat(2000) };
    const path = await dataFile("long.jsonl", [long, row]);
    const { code, err } = await train("--data", path, "--max-length", "4096");
    expect(code, err).toBe(0);
    expect(err).toContain("warning[data-context]");
    expect(err).toMatch(/warning\[data-cut\]: .*1 /);
  });

  test("no supervised token", async () => {
    const messages = [{ role: "user", content: "Is anybody there?" }];
    const path = await dataFile("silent.jsonl", [{ messages }]);
    await expectError(["--data", path], "data-unsupervised", "turns of the assistant");
  });
});

describe("settings that the model does not allow", () => {
  test("a target module that matches nothing: the nearest names", () =>
    expectError(["--target-modules", "q_prj,v_proj"], "lora-targets", "q_prj", '"q_proj"'));

  test("a rank larger than the matrix is a warning", async () => {
    const { code, err } = await train("--target-modules", "k_proj", "--r", "200");
    expect(code, err).toBe(0);
    expect(err).toContain("warning[lora-rank]: rank 200 is more than model.layers.0.self_attn");
    expect(err).toContain("and 5 other layers can use: the smaller side of its weight is 128");
  });

  test("a rank that would fill the memory is refused", () =>
    expectError(["--r", "1000000000"], "lora-config", "whose weight is 256 × 256, got 1000000000"));

  test("patterns, exclusions and layers that match nothing are warnings", async () => {
    const { code, err } = await train("--rank-pattern", "{q_prj: 2, v_proj: 2}", "--alpha-pattern", "{nothing: 3}", "--exclude-modules", "o_prj,up_proj", "--layers-to-transform", "0,99"); // prettier-ignore
    expect(code, err).toBe(0);
    expect(err.match(/warning\[lora-unused\]: .*/g)).toEqual([
      'warning[lora-unused]: rank_pattern "q_prj" (did you mean "q_proj", "k_proj", "v_proj"?) matches no layer',
      'warning[lora-unused]: alpha_pattern "nothing" matches no layer',
      'warning[lora-unused]: exclude_modules "o_prj" (did you mean "o_proj", "q_proj", "k_proj"?) matches no layer',
      "warning[lora-unused]: layers_to_transform 99 matches no layer",
    ]);
  });

  test("more memory than there is: refused before it starts, with what to change", () =>
    expectError(
      ["--packing", "--per-device-train-batch-size", "200000", "--max-length", "1024"],
      "out-of-memory",
      "--per-device-train-batch-size",
      "--gradient-checkpointing",
    ));

  test("a second run into the same folder", async () => {
    const output = join(root, "twice");
    const flags = ["--output-dir", output];
    expect((await train(...flags)).code).toBe(0);
    await expectError(flags, "output-exists", "--resume", "--overwrite");
    expect((await train(...flags, "--overwrite")).code).toBe(0);
  });
});
