/**
 * @file Peak memory of a merge: writes a Llama-shaped checkpoint of random weights in several files, merges an adapter
 * into it with the command, as a process of its own, and compares the process's largest resident size with the largest
 * file. Run by hand; prints a Markdown table row.
 *
 *   node --import ./scripts/typescript.js bench/merge-memory.ts [LAYERS [SHARD_SIZE [FOLDER]]]
 */
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { peftKey } from "../src/adapter/adapter.ts";
import { lora } from "../src/adapter/lora-config.ts";
import type { WeightSource } from "../src/backends/backend.ts";
import { saveAdapter } from "../src/host/adapter-files.ts";
import { saveCheckpoint } from "../src/host/save-checkpoint.ts";
import { topological } from "../src/ir/graph.ts";
import { causalLM } from "../src/models/registry.ts";
import { isFrozen } from "../src/ops/leaf.ts";
import { loraCandidates } from "../src/passes/lora.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";

const [layers = "24", shardSize = "1.2e9", parent = tmpdir()] = process.argv.slice(2);
const RANK = 16;
const config = {
  model_type: "llama",
  vocab_size: 32000,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: Number(layers),
  num_attention_heads: 32,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 2048,
  tie_word_embeddings: false,
};

const model = causalLM(config, { batch: 1, length: 1 });
const logits = model.head(model.hidden);
const shapes = new Map(topological([logits]).filter(isFrozen).map(({ name, shape }) => [name!, shape])); // prettier-ignore

/** bf16 values near 0.01, different from one another. */
function valuesOf(shape: readonly number[]): Tensor {
  const data = new Uint16Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = 0x3c00 + ((i * 2654435761) >>> 26);
  return tensor("bf16", shape, data);
}

const weights: WeightSource = {
  names: [...shapes.keys()],
  get: (name) => ({ dtype: "bf16", shape: shapes.get(name)!, bytes: { kind: "computed" } }),
  read: (name) => Promise.resolve(valuesOf(shapes.get(name)!)),
};

function adapterTensors(): Map<string, Tensor> {
  const pairs = loraCandidates([logits])
    .filter(({ kind, module }) => kind === "linear" && module.includes(".layers."))
    .flatMap(({ module, inFeatures, outFeatures }) => [
      [peftKey(module, "lora_A.weight"), filled([RANK, inFeatures])] as const,
      [peftKey(module, "lora_B.weight"), filled([outFeatures, RANK])] as const,
    ]);
  return new Map(pairs);
}

function filled(shape: readonly number[]): Tensor {
  return tensor("f32", shape, Float32Array.from({ length: sizeOf(shape) }, (_, i) => ((i % 97) - 48) / 4800)); // prettier-ignore
}

const scratch = await mkdtemp(join(parent, "lorikeet-merge-memory-"));
try {
  const [base, adapter, out] = ["base", "adapter", "merged"].map((name) => join(scratch, name)) as [string, string, string]; // prettier-ignore
  const checkpoint = { name: "synthetic", path: base, config, weights, tokenizer: undefined, tokenizerConfig: undefined, generationConfig: undefined, chatTemplate: undefined }; // prettier-ignore
  const { bytes, files } = await saveCheckpoint(checkpoint, base, { maxShardBytes: Number(shardSize) }); // prettier-ignore
  await saveAdapter({ config: lora({ r: RANK, alpha: 32, targetModules: "all-linear" }), tensors: adapterTensors() }, adapter); // prettier-ignore
  // the process reports its own peak, as a shell's `time` would
  const entry = join(scratch, "merge.mjs");
  const commandLine = pathToFileURL(join(import.meta.dirname, "../src/cli/command-line.ts")).href;
  await writeFile(entry, `import { runCommandLine } from ${JSON.stringify(commandLine)};
const started = process.resourceUsage().maxRSS;
const code = await runCommandLine(process.argv.slice(2), { out: process.stderr, err: process.stderr });
process.stdout.write(JSON.stringify({ code, started, peak: process.resourceUsage().maxRSS }));
`); // prettier-ignore
  const start = performance.now();
  const loader = join(import.meta.dirname, "../scripts/typescript.js");
  const { stdout, stderr } = spawnSync(process.execPath, ["--import", loader, entry, "merge", "-m", base, "-a", adapter, "-o", out, "--max-shard-size", shardSize.replace(/e9$/, "GB").replace(/e6$/, "MB")], { encoding: "utf8" }); // prettier-ignore
  const seconds = (performance.now() - start) / 1000;
  process.stderr.write(stderr);
  const { code, started, peak } = JSON.parse(stdout) as { code: number; started: number; peak: number }; // prettier-ignore
  if (code !== 0) throw new Error(`merge ended with ${code}`);
  const shards = (await readdir(out)).filter((name) => name.endsWith(".safetensors"));
  const sizes = await Promise.all(shards.map(async (name) => (await stat(join(out, name))).size));
  const largest = Math.max(...sizes);
  const gb = (count: number): string => (count / 1e9).toFixed(2);
  const cells = [gb(bytes), files.filter((name) => name.endsWith(".safetensors")).length, gb(largest), gb(peak * 1024), gb(started * 1024), seconds.toFixed(0)]; // prettier-ignore
  process.stdout.write(`| ${cells.join(" | ")} |\n`);
  if (peak * 1024 > largest + 1e9) process.exitCode = 1;
} finally {
  await rm(scratch, { recursive: true });
}
