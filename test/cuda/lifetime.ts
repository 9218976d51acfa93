/** @file What happens to programs and engines that are used when they, or their engine, are gone. */
import type { Engine, Program } from "../../src/backends/backend.ts";
import { cudaEngine } from "../../src/backends/cuda/engine.ts";
import { LorikeetError } from "../../src/errors.ts";
import { add } from "../../src/ops/add.ts";
import { input } from "../../src/ops/leaf.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import type { Check } from "./check.ts";
import { memoryWeights } from "../support/tiny.ts";

const feeds = { x: tensor("f32", [64], new Float32Array(64).fill(1)) };

function compile(engine: Engine): Promise<Program> {
  const x = input("x", [64]);
  return engine.compile({ outputs: { y: add(x, x) }, gradients: {} });
}

/** The code of the error that `use` ends with. */
async function codeOf(use: () => Promise<unknown>): Promise<string> {
  try {
    await use();
  } catch (error) {
    return error instanceof LorikeetError ? error.code : String(error);
  }
  return "no error";
}

async function checkDisposed(): Promise<string> {
  const engine = cudaEngine(memoryWeights(new Map()), { precision: "f32" });
  const [first, second, third] = [
    await compile(engine),
    await compile(engine),
    await compile(engine),
  ];
  const { y } = await first.run(feeds);
  if (y!.data[63] !== 2) throw new Error(`expected 2, got ${y!.data[63]}`);
  const codes: string[] = [];
  const pending = codeOf(() => third.run(feeds));
  await third.dispose();
  codes.push(await pending);
  await first.dispose();
  await first.dispose();
  codes.push(await codeOf(() => first.run(feeds)));
  await engine.dispose();
  await engine.dispose();
  codes.push(
    await codeOf(() => second.run(feeds)),
    await codeOf(() => compile(engine)),
    await codeOf(() => engine.applyGradients({} as never)),
  );
  await second.dispose();
  const other = cudaEngine(memoryWeights(new Map()), { precision: "f32" });
  const compiling = codeOf(() => compile(other));
  await other.dispose();
  codes.push(await compiling);
  const expected = `program-disposed program-disposed${" engine-disposed".repeat(4)}`;
  if (codes.join(" ") !== expected) throw new Error(`expected ${expected}, got ${codes.join(" ")}`);
  return codes.join(", ");
}

export const checks: readonly Check[] = [
  { name: "lifetime: what is disposed of is refused", run: checkDisposed },
];
