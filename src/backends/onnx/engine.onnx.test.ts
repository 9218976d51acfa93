import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { afterEach, describe, expect, it } from "vitest";
import { referenceEngine } from "../reference/engine.ts";
import { LorikeetError } from "../../errors.ts";
import type { Graph } from "../../ir/graph.ts";
import { add } from "../../ops/add.ts";
import { constant, input, parameter } from "../../ops/leaf.ts";
import { linear } from "../../ops/linear.ts";
import { linearCrossEntropy } from "../../ops/linear-cross-entropy.ts";
import { mul } from "../../ops/mul.ts";
import { rmsNorm } from "../../ops/rms-norm.ts";
import { gradient } from "../../passes/gradient.ts";
import { Random } from "../../tensor/random.ts";
import { sizeOf, type Shape } from "../../tensor/shape.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import type { AdamWStep, Engine, WeightSource } from "../backend.ts";
import { createOnnxEngine } from "./engine.ts";

const [N, C, R, V] = [6, 16, 2, 24];
const random = new Random(5);
const normal = (shape: Shape): Tensor =>
  tensor(
    "f32",
    shape,
    Float32Array.from({ length: sizeOf(shape) }, () => random.normal()),
  );
const frozen: Record<string, Tensor> = {
  norm: normal([C]),
  w: normal([C, C]),
  head: normal([V, C]),
};
const adapters: Record<string, Tensor> = { a: normal([R, C]), b: normal([C, R]) };
const feeds: Record<string, Tensor> = {
  x: normal([N, C]),
  targets: tensor(
    "i64",
    [N],
    BigInt64Array.from({ length: N }, (_, i) => BigInt((7 * i) % V)),
  ),
  weights: tensor("f32", [N], new Float32Array(N).fill(1 / N)),
};
const weights: WeightSource = {
  names: Object.keys(frozen),
  get(name) {
    const found = frozen[name];
    if (!found) throw new LorikeetError("missing-weight", `Expected weight ${name}`);
    return { dtype: found.dtype, shape: found.shape, bytes: { kind: "memory", tensor: found } };
  },
  read: (name) => Promise.resolve(frozen[name]!),
};

/** One layer with an adapter under a cross-entropy loss. */
function tinyGraph(headName = "head"): Graph {
  const [a, b] = [
    parameter("a", [R, C], { trainable: true }),
    parameter("b", [C, R], { trainable: true }),
  ];
  const x = rmsNorm(input("x", [N, C]), parameter("norm", [C]));
  const y = add(linear(x, parameter("w", [C, C])), mul(linear(linear(x, a), b), constant(0.5)));
  const loss = linearCrossEntropy(
    y,
    parameter(headName, [V, C]),
    input("targets", [N], "i64"),
    input("weights", [N]),
  );
  const result = gradient(loss, [a, b]);
  return {
    outputs: { loss: result.loss },
    gradients: { a: result.gradients[0]!, b: result.gradients[1]! },
  };
}

const engines: Engine[] = [];
const make = (source = weights): Engine => {
  const engine = createOnnxEngine({ weights: source, threads: 1 });
  engines.push(engine);
  return engine;
};
afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.dispose()));
});
const setAdapters = async (engine: Engine): Promise<void> => {
  for (const [name, value] of Object.entries(adapters)) await engine.set(name, value);
};
const step = (number: number, changes: Partial<AdamWStep> = {}): AdamWStep => ({
  step: number,
  learningRate: 1e-2,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0.1,
  maxGradNorm: 1,
  ...changes,
});
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "none",
    (error: unknown) => (error as LorikeetError).code,
  );
const values = async (engine: Engine, name: string): Promise<number[]> =>
  [...(await engine.get(name)).data].map(Number);

describe("training", () => {
  it("follows the reference engine over clipped, accumulated AdamW steps to 1e-5", async () => {
    const [onnx, reference] = [make(), referenceEngine(weights)];
    const losses: number[][] = [];
    const norms: number[][] = [];
    for (const engine of [onnx, reference]) {
      await setAdapters(engine);
      const program = await engine.compile(tinyGraph());
      const seen: number[] = [];
      const seenNorms: number[] = [];
      for (let i = 1; i <= 5; i++) {
        seen.push(Number((await program.run(feeds))["loss"]!.data[0]));
        await program.run(feeds);
        const update = step(i, { learningRateScales: { b: 4 } });
        seenNorms.push((await engine.applyGradients(update)).gradNorm);
      }
      losses.push(seen);
      norms.push(seenNorms);
    }
    for (let i = 0; i < 5; i++) {
      expect(losses[0]![i]!).toBeCloseTo(losses[1]![i]!, 5);
      expect(norms[0]![i]! / norms[1]![i]!).toBeCloseTo(1, 5);
    }
    expect(losses[0]![4]!).toBeLessThan(losses[0]![0]! - 0.1);
    for (const name of ["a", "b", "a.exp_avg", "b.exp_avg_sq"]) {
      const [got, want] = [await values(onnx, name), await values(reference, name)];
      for (const [i, value] of want.entries()) expect(got[i]!).toBeCloseTo(value, 5);
    }
  });

  it("adds the gradients of several programs and forgets them when cleared", async () => {
    const engine = make();
    await setAdapters(engine);
    const [first, second] = [await engine.compile(tinyGraph()), await engine.compile(tinyGraph())];
    await first.run(feeds);
    const once = await values(engine, "b.grad");
    await second.run(feeds);
    const twice = await values(engine, "b.grad");
    for (const [i, value] of once.entries()) expect(twice[i]!).toBeCloseTo(2 * value, 6);
    await engine.clearGradients();
    expect(await values(engine, "b.grad")).toEqual(once.map(() => 0));
    expect(await engine.applyGradients(step(1))).toEqual({ gradNorm: 0 });
  });

  it("does not touch parameters whose gradient is not finite", async () => {
    const engine = make();
    await setAdapters(engine);
    const program = await engine.compile(tinyGraph());
    const broken = { ...feeds, x: tensor("f32", [N, C], new Float32Array(N * C).fill(NaN)) };
    await program.run(broken);
    expect((await engine.applyGradients(step(1))).gradNorm).toBeNaN();
    expect(await values(engine, "b")).toEqual([...adapters["b"]!.data]);
  });
});

describe("state", () => {
  it("gives back what was set, and copies", async () => {
    const engine = make();
    await setAdapters(engine);
    const moment = normal([C, R]);
    await engine.set("b.exp_avg", moment);
    expect(await values(engine, "b.exp_avg")).toEqual([...moment.data]);
    const copy = await engine.get("b");
    copy.data[0] = 99;
    expect(await values(engine, "b")).toEqual([...adapters["b"]!.data]);
    expect(adapters["b"]!.data).toHaveLength(C * R);
  });

  it("takes no more of a view's buffer than the view: moments of a checkpoint share one", async () => {
    const engine = make();
    const whole = new Float32Array(1000);
    await engine.set("a", tensor("f32", [R, C], whole.subarray(0, R * C)));
    expect((await engine.get("a")).data.buffer.byteLength).toBe(4 * R * C);
  });

  it("refuses unknown names, other shapes and missing values with a code and a hint", async () => {
    const engine = make();
    const program = await engine.compile(tinyGraph());
    expect(await codeOf(program.run(feeds))).toBe("missing-parameter");
    await setAdapters(engine);
    await expect(engine.get("aa")).rejects.toMatchObject({
      code: "missing-parameter",
      hint: expect.stringContaining("a") as string,
    });
    expect(await codeOf(engine.set("a", normal([C, C])))).toBe("shape");
    expect(await codeOf(engine.set("a", tensor("f64", [R, C])))).toBe("onnx-dtype");
  });
});

describe("failure", () => {
  it("reports what the thread could not do, and goes on", async () => {
    const engine = make();
    await setAdapters(engine);
    expect(await codeOf(engine.compile(tinyGraph("heat")))).toBe("missing-weight");
    const program = await engine.compile(tinyGraph());
    expect(await codeOf(program.run({ ...feeds, x: normal([N, C + 1]) }))).toBe("onnx-run");
    expect(await codeOf(program.run({ ...feeds, x: tensor("bf16", [N, C]) }))).toBe("onnx-dtype");
    expect((await program.run(feeds))["loss"]!.shape).toEqual([]);
    await program.dispose();
    expect(await codeOf(program.run(feeds))).toBe("program-disposed");
  });

  it("rejects what is pending and later when the engine is disposed, and leaves no file", async () => {
    const own = (): string[] =>
      readdirSync(tmpdir()).filter((name) => name.startsWith(`lorikeet-${process.pid}-`));
    const engine = make();
    await setAdapters(engine);
    const program = await engine.compile(tinyGraph());
    expect(own()).toHaveLength(1);
    const running = program.run(feeds);
    await engine.dispose();
    expect((await running)["loss"]!.shape).toEqual([]);
    expect(await codeOf(program.run(feeds))).toBe("engine-disposed");
    await engine.dispose();
    expect(own()).toEqual([]);
  });
});
