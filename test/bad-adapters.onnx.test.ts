import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { GgufMetadata } from "../src/formats/gguf/metadata.ts";
import { encodeGguf } from "../src/formats/gguf/write.ts";
import { loadAdapterFolder, saveAdapter } from "../src/host/adapter-files.ts";
import { writeAtomically } from "../src/host/files.ts";
import { tensor } from "../src/tensor/tensor.ts";
import { lorikeet } from "./support/command.ts";

const GOOD = join(import.meta.dirname, "golden/lora/adapter_after10");
const WEIGHTS = "adapter_model.safetensors";
const MODEL = "storyteller-6m";
let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "lorikeet-bad-adapters-"));
});
afterAll(() => rm(root, { recursive: true }));

/** A copy of a good adapter with `change` made to it. */
async function broken(name: string, change: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(root, name);
  await cp(GOOD, folder, { recursive: true });
  await change(folder);
  return folder;
}

const weights = (bytes: Uint8Array) => (folder: string) => writeFile(join(folder, WEIGHTS), bytes); // prettier-ignore

function safetensors(header: string, length = BigInt(header.length), data = 16): Uint8Array {
  const bytes = Buffer.alloc(8 + header.length + data);
  bytes.writeBigUInt64LE(length);
  bytes.write(header, 8);
  return bytes;
}

const settings = (changes: object) => async (folder: string) => {
  const path = join(folder, "adapter_config.json");
  const config = JSON.parse(await readFile(path, "utf8")) as object;
  await writeFile(path, JSON.stringify({ ...config, ...changes }));
};

/** Every command that reads an adapter and writes something is refused with `code`, and nothing is there after it. */
async function refused(adapter: string, code: string, model = MODEL): Promise<string> {
  const before = await readdir(root);
  const out = join(root, "must-not-appear");
  const flags = ["-m", model, "-o"];
  const merged = await lorikeet("merge", "-a", adapter, ...flags, out);
  const onnx = await lorikeet("merge", "-a", adapter, "--to", "onnx", ...flags, out);
  for (const told of [merged, onnx]) {
    expect(told.err).toContain(`error[${code}]`);
    expect(told.err).toMatch(/hint: \S/);
    expect([told.code, told.out]).toEqual([1, ""]);
  }
  expect(existsSync(out)).toBe(false);
  expect(await readdir(root)).toEqual(before);
  return merged.err;
}

const one = '"dtype":"F32","shape":[2]';

describe("an adapter is refused, with a code and a hint, and nothing is written", () => {
  test.each<[string, Uint8Array, string]>([
    ["no safetensors at all", Buffer.from("PK but no zip, and no safetensors"), "corrupt-safetensors"],
    ["a header that is no JSON", safetensors('{"a":'), "corrupt-safetensors"],
    ["a header of 2^60 bytes", safetensors("{}", 1n << 60n), "corrupt-safetensors"],
    ["tensors that overlap", safetensors(`{"a":{${one},"data_offsets":[0,8]},"b":{${one},"data_offsets":[4,12]}}`, undefined, 12), "corrupt-safetensors"],
    ["a key that occurs twice", safetensors(`{"a":{${one},"data_offsets":[0,8]},"a":{${one},"data_offsets":[8,16]}}`), "corrupt-safetensors"],
    ["data that was cut off", safetensors(`{"a":{${one},"data_offsets":[0,8]}}`, undefined, 5), "truncated-file"],
    ["an empty file", new Uint8Array(0), "truncated-file"],
  ])("%s", async (name, bytes, code) => {
    const adapter = await broken(name, weights(bytes));
    expect(await refused(adapter, code)).toContain(WEIGHTS);
  }); // prettier-ignore

  test("a pickle that would run code; nothing runs", async () => {
    const marker = join(root, "ran");
    const code = Buffer.from(`cos\nsystem\n(S'touch ${marker}'\ntR.`, "latin1");
    const adapter = await broken("pickle", async (folder) => {
      await rm(join(folder, WEIGHTS));
      await writeFile(join(folder, "adapter_model.bin"), storedZip("archive/data.pkl", code));
    });
    expect(await refused(adapter, "unsafe-pickle")).toContain("os.system");
    expect(existsSync(marker)).toBe(false);
  });

  test.each<[string, object, string, string]>([
    ["another method", { peft_type: "LOHA" }, "peft-type", "LOHA"],
    ["no method", { peft_type: null }, "peft-type", "LORA"],
    ["r 0", { r: 0 }, "adapter-config", "r"],
    ["a negative r", { r: -4 }, "adapter-config", "-4"],
    ["a rank that is no whole number", { rank_pattern: { q_proj: 1.5 } }, "adapter-config", "1.5"],
    ["values of other types", { lora_alpha: "16", bias: "some", target_modules: 7 }, "adapter-config", "3 faults"],
    ["a dropout above 1", { lora_dropout: 7 }, "adapter-config", "lora_dropout"],
    ["a switch that nobody knows", { use_future: true }, "unsupported-lora-variant", "use_future (not known)"],
    ["an unknown start", { init_lora_weights: "tidal" }, "unsupported-lora-variant", '"tidal" (not known)'],
    ["a variant that is not built", { kasa_config: { gamma: 1 } }, "unsupported-lora-variant", "kasa_config"],
  ])("%s", async (name, changes, code, text) => {
    const adapter = await broken(name, settings(changes));
    expect(await refused(adapter, code)).toContain(text);
  }); // prettier-ignore

  test("values that are not finite", async () => {
    const adapter = await broken("nan", async (folder) => {
      const read = await loadAdapterFolder(folder);
      for (const { data } of read.tensors.values()) data[3] = NaN;
      await saveAdapter(read, folder);
    });
    expect(await refused(adapter, "not-finite")).toContain("NaN");
    const out = join(root, "must-not-appear");
    for (const to of ["peft", "mlx", "gguf"]) {
      const told = await lorikeet("convert", adapter, "--to", to, "-m", MODEL, "-o", out);
      expect([told.code, told.err]).toEqual([1, expect.stringContaining("error[not-finite]")]);
    }
    const restored = await lorikeet("unmerge", "-m", MODEL, "-a", adapter, "-o", out);
    expect([restored.code, restored.err]).toEqual([1, expect.stringContaining("error[not-finite]")]); // prettier-ignore
    const said = await lorikeet("generate", "-a", adapter, "-p", "Once");
    expect([said.code, said.err]).toEqual([1, expect.stringContaining("error[not-finite]")]);
    expect(existsSync(out)).toBe(false);
  });

  test("the wrong base: every tensor that does not fit", async () => {
    const text = await refused(GOOD, "adapter-mismatch", join(import.meta.dirname, "fixtures/models/qwen2")); // prettier-ignore
    expect(text).toMatch(/found \d+ faults/);
  });

  test("a base in GGUF of an architecture that is not known", async () => {
    const path = join(root, "rwkv.gguf");
    const metadata: GgufMetadata = new Map([["general.architecture", { type: "string", value: "rwkv6" }]]); // prettier-ignore
    const spec = { name: "token_embd.weight", shape: [1, 32], type: "F32" as const };
    await writeAtomically(
      path,
      encodeGguf(metadata, [spec], () => tensor("f32", [1, 32])),
    );
    expect(await refused(GOOD, "unsupported-architecture", path)).toContain("rwkv6");
  });

  test("an empty folder, and one with a configuration alone", async () => {
    const empty = join(root, "empty");
    await mkdir(empty);
    await refused(empty, "file-not-found");
    await refused(await broken("bare", (folder) => rm(join(folder, WEIGHTS))), "file-not-found");
  });
});

/** A zip archive of one stored file, as torch.save makes them. */
function storedZip(name: string, content: Uint8Array): Uint8Array {
  const local = Buffer.alloc(30);
  local.writeUInt32LE(0x04034b50, 0);
  local.writeUInt16LE(name.length, 26);
  const entry = Buffer.alloc(46);
  entry.writeUInt32LE(0x02014b50, 0);
  entry.writeUInt32LE(content.length, 20);
  entry.writeUInt32LE(content.length, 24);
  entry.writeUInt16LE(name.length, 28);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(1, 8);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(46 + name.length, 12);
  end.writeUInt32LE(30 + name.length + content.length, 16);
  return Buffer.concat([local, Buffer.from(name), content, entry, Buffer.from(name), end]);
}
