import { describe, expect, it } from "vitest";
import { type LorikeetError } from "../errors.ts";
import { Random } from "../tensor/random.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { fit } from "./fit.ts";
import { LoraConv1d, LoraConv2d } from "./lora-conv.ts";
import { LoraEmbedding } from "./lora-embedding.ts";
import type { LoraLayer } from "./lora-layer.ts";
import { LoraLinear, type LoraLinearOptions } from "./lora-linear.ts";

function normal(shape: Shape, label: string): Tensor {
  const random = new Random(1).fork(label);
  return tensor(
    "f32",
    shape,
    Float32Array.from({ length: sizeOf(shape) }, () => random.normal()),
  );
}

/** Moves every adapter tensor away from its first value, as training would. */
function trained<L extends LoraLayer>(layer: L): L {
  const random = new Random(2);
  for (const { data } of layer.trainableParameters().values())
    data.forEach((value, i) => (data[i] = Number(value) * 1.1 + 0.05 * random.normal()));
  return layer;
}

function difference(a: Tensor, b: Tensor): number {
  expect(a.shape).toEqual(b.shape);
  let most = 0;
  for (let i = 0; i < a.data.length; i++)
    most = Math.max(most, Math.abs(Number(a.data[i]) - Number(b.data[i])));
  return most;
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return (error as LorikeetError).code;
  }
  return "none";
}

const small: LoraLinearOptions = { inFeatures: 6, outFeatures: 5, r: 2, alpha: 4 };

it("passes the tutorial's check: [32, 128, 768] → [32, 128, 512], merged and back", () => {
  const layer = trained(
    new LoraLinear({ inFeatures: 768, outFeatures: 512, r: 8, alpha: 16 }).eval(),
  );
  const x = normal([32, 128, 768], "x");
  const before = layer.forward(x);
  expect(before.shape).toEqual([32, 128, 512]);
  const merged = layer.merge().forward(x);
  expect(difference(before, merged)).toBeLessThanOrEqual(1e-5);
  expect(difference(before, layer.unmerge().forward(x))).toBe(0);
}, 60_000);

const layers: [string, () => LoraLayer, Tensor][] = [
  ["linear", () => new LoraLinear(small), normal([3, 6], "x")],
  [
    "linear, DoRA, rsLoRA",
    () => new LoraLinear({ ...small, useDora: true, useRslora: true }),
    normal([2, 3, 6], "x"),
  ],
  [
    "embedding",
    () => new LoraEmbedding({ numEmbeddings: 7, embeddingDim: 5, r: 2 }),
    tensor("i64", [2, 2], BigInt64Array.of(0n, 6n, 3n, 3n)),
  ],
  [
    "embedding, DoRA",
    () => new LoraEmbedding({ numEmbeddings: 7, embeddingDim: 5, r: 2, useDora: true }),
    tensor("i64", [2], BigInt64Array.of(0n, 6n)),
  ],
  [
    "conv1d",
    () => new LoraConv1d({ inChannels: 3, outChannels: 4, kernelSize: 3, r: 2, padding: 1 }),
    normal([2, 3, 7], "x"),
  ],
  [
    "conv2d",
    () =>
      new LoraConv2d({
        inChannels: 3,
        outChannels: 4,
        kernelSize: [3, 2],
        r: 2,
        stride: 2,
        dilation: [1, 2],
      }),
    normal([2, 3, 7, 8], "x"),
  ],
  [
    "conv2d, DoRA",
    () => new LoraConv2d({ inChannels: 3, outChannels: 4, kernelSize: 3, r: 2, useDora: true }),
    normal([1, 3, 4, 4], "x"),
  ],
];

describe.each(layers)("%s", (_, make, x) => {
  it("starts as its base, merges to the same result, and comes back bit for bit", () => {
    const layer = make();
    const base = layer.base();
    const plain = layer.forward(x);
    for (const value of layer.trainableParameters().values()) expect(value.dtype).toBe("f32");
    trained(layer);
    const adapted = layer.forward(x);
    expect(difference(plain, adapted)).toBeGreaterThan(1e-3);
    expect(difference(layer.merge().forward(x), adapted)).toBeLessThan(2e-6);
    expect(layer.unmerge().base().weight.data).toEqual(base.weight.data);
    expect(difference(layer.forward(x), adapted)).toBe(0);
  });

  it("at its start gives what rank 0 gives", () => {
    const layer = make();
    const parameters = [...layer.trainableParameters()];
    expect(parameters.length).toBeGreaterThanOrEqual(2);
    expect(difference(layer.forward(x), layer.merge().forward(x))).toBeLessThan(1e-6);
  });
});

it("rank 0 is a plain layer without trainable parameters", () => {
  const layer = new LoraLinear({ ...small, r: 0 });
  const x = normal([2, 6], "x");
  expect([...layer.trainableParameters()]).toEqual([]);
  const { weight, bias } = layer.base();
  const want = Array.from({ length: 10 }, (_, i) => {
    const row = Math.floor(i / 5);
    let sum = Number(bias!.data[i % 5]);
    for (let k = 0; k < 6; k++)
      sum += Number(x.data[row * 6 + k]) * Number(weight.data[(i % 5) * 6 + k]);
    return sum;
  });
  expect(difference(layer.forward(x), tensor("f32", [2, 5], Float32Array.from(want)))).toBeLessThan(
    1e-6,
  );
});

it("adds alpha / r · x·Aᵀ·Bᵀ; rsLoRA divides by √r", () => {
  for (const useRslora of [false, true]) {
    const layer = trained(new LoraLinear({ ...small, useRslora }));
    const [a, b] = ["lora_A.weight", "lora_B.weight"].map(
      (name) => layer.trainableParameters().get(name)!.data,
    );
    const x = normal([1, 6], "x");
    const scale = useRslora ? 4 / Math.sqrt(2) : 2;
    const plain = new LoraLinear(small).forward(x);
    const want = Float32Array.from(plain.data as Float32Array, (value, o) => {
      let sum = value;
      for (let r = 0; r < 2; r++)
        for (let k = 0; k < 6; k++)
          sum += scale * Number(b![o * 2 + r]) * Number(a![r * 6 + k]) * Number(x.data[k]);
      return sum;
    });
    expect(difference(layer.forward(x), tensor("f32", [1, 5], want))).toBeLessThan(1e-6);
  }
});

it("drops in training mode alone, on the input or on the result", () => {
  const x = normal([4, 6], "x");
  for (const dropoutOn of ["input", "output"] as const) {
    const layer = trained(new LoraLinear({ ...small, dropout: 0.5, dropoutOn }));
    const [first, second] = [layer.forward(x), layer.forward(x)];
    expect(difference(first, second)).toBeGreaterThan(1e-3);
    expect(difference(layer.eval().forward(x), layer.forward(x))).toBe(0);
    expect(difference(layer.train().forward(x), layer.eval().forward(x))).toBeGreaterThan(1e-3);
  }
  // what is dropped of the result leaves exactly the base's
  const layer = trained(new LoraLinear({ ...small, dropout: 0.5, dropoutOn: "output" }));
  const plain = new LoraLinear({ ...small, r: 0 }).forward(x);
  const same = layer
    .forward(x)
    .data.filter((value: number | bigint, i: number) => value === plain.data[i]);
  expect(same.length).toBeGreaterThan(3);
});

it("draws A by the chosen initialisation, and B as zeros", () => {
  const deviation = (init: LoraLinearOptions["init"]): number => {
    const layer = new LoraLinear({
      inFeatures: 400,
      outFeatures: 4,
      r: 50,
      ...(init !== undefined && { init }),
    });
    expect(
      layer
        .trainableParameters()
        .get("lora_B.weight")!
        .data.every((value: number | bigint) => value === 0),
    ).toBe(true);
    const { data } = layer.trainableParameters().get("lora_A.weight")!;
    return Math.hypot(...(data as Float32Array)) / Math.sqrt(data.length);
  };
  expect(deviation(true)).toBeCloseTo(1 / Math.sqrt(3 * 400), 3);
  expect(deviation("gaussian")).toBeCloseTo(1 / 50, 3);
  expect(deviation("kaiming-normal")).toBeCloseTo(Math.sqrt(2 / 1.0001 / 400), 3);
});

it.each(["pissa", "pissa_niter_4", "olora", "orthogonal"] as const)(
  "%s starts as its base",
  (init) => {
    const options = { inFeatures: 12, outFeatures: 9, r: 4, alpha: 8, init };
    const x = normal([3, 12], "x");
    const plain = new LoraLinear({ ...options, r: 0 });
    for (const useDora of [false, true]) {
      const layer = new LoraLinear({ ...options, useDora }).loadBase(plain.base().weight);
      for (const value of layer.trainableParameters().values())
        expect(value.data.some((element: number | bigint) => element !== 0)).toBe(true);
      expect(difference(layer.forward(x), plain.forward(x))).toBeLessThan(1e-6);
    }
  },
);

it("refuses to merge twice, to unmerge what is not merged, and to load or fit a merged layer", async () => {
  const layer = new LoraLinear(small);
  expect(codeOf(() => layer.unmerge())).toBe("not-merged");
  layer.merge();
  expect(layer.isMerged).toBe(true);
  expect(codeOf(() => layer.merge())).toBe("already-merged");
  expect(codeOf(() => layer.loadBase(layer.base().weight))).toBe("already-merged");
  const data = { x: normal([2, 6], "x"), y: normal([2, 5], "y") };
  await expect(fit(layer, data)).rejects.toMatchObject({ code: "already-merged" });
  await expect(fit(new LoraLinear({ ...small, r: 0 }), data)).rejects.toMatchObject({
    code: "nothing-to-train",
  });
});

it("refuses options, inputs and weights that do not fit", () => {
  expect(codeOf(() => new LoraLinear({ ...small, r: -1, dropout: 1 }))).toBe("layer-options");
  expect(codeOf(() => new LoraLinear({ ...small, inFeatures: 0 }))).toBe("layer-options");
  expect(
    codeOf(() => new LoraConv2d({ inChannels: 4, outChannels: 4, kernelSize: 1, r: 3, groups: 2 })),
  ).toBe("layer-options");
  for (const wrong of [{ alpha: NaN }, { init: "eva" }, { init: "pisa" }, { dropoutOn: "outptu" }])
    expect(codeOf(() => new LoraLinear({ ...small, ...(wrong as object) }))).toBe("layer-options");
  const rows = new LoraEmbedding({ numEmbeddings: 4, embeddingDim: 3, r: 1 });
  for (const id of [-1n, 4n])
    expect(codeOf(() => rows.forward(tensor("i64", [1], BigInt64Array.of(id))))).toBe(
      "embedding-id",
    );
  const narrow = { inFeatures: 6, outFeatures: 3, r: 4 };
  for (const init of ["pissa", "pissa_niter_2", "olora"] as const)
    expect(codeOf(() => new LoraLinear({ ...narrow, init }))).toBe("unsupported-init");
  const bare = new LoraLinear({ ...small, bias: false });
  expect(codeOf(() => bare.loadBase(normal([5, 6], "w"), normal([5], "b")))).toBe("layer-options");
  expect(codeOf(() => new LoraLinear(small).forward(normal([2, 5], "x")))).toBe("shape");
  expect(codeOf(() => new LoraLinear(small).loadBase(normal([6, 5], "w")))).toBe("shape");
  const grouped = new LoraConv2d({ inChannels: 4, outChannels: 4, kernelSize: 1, r: 2, groups: 2 });
  expect(grouped.forward(normal([1, 4, 2, 2], "x")).shape).toEqual([1, 4, 2, 2]);
  expect(codeOf(() => grouped.merge())).toBe("cannot-merge");
});

it("stops to fit at ids without a row and at losses that are no number", async () => {
  const rows = new LoraEmbedding({ numEmbeddings: 4, embeddingDim: 3, r: 1 });
  const ids = tensor("i64", [1], BigInt64Array.of(4n));
  await expect(fit(rows, { x: ids, y: normal([1, 3], "y") })).rejects.toMatchObject({
    code: "embedding-id",
  });
  const layer = new LoraLinear(small);
  const y = tensor("f32", [2, 5], new Float32Array(10).fill(NaN));
  await expect(fit(layer, { x: normal([2, 6], "x"), y })).rejects.toMatchObject({
    code: "non-finite-loss",
  });
  expect(layer.trainableParameters().get("lora_B.weight")!.data.every((v: number | bigint) => v === 0)).toBe(true); // prettier-ignore
});

it("fits a toy regression, with the base as it was", async () => {
  const teacher = trained(new LoraLinear({ ...small, seed: 3 }));
  const x = normal([64, 6], "x");
  const y = teacher.forward(x);
  const layer = new LoraLinear(small).loadBase(teacher.base().weight, teacher.base().bias);
  const bytes = layer.base().weight.data.slice();
  const losses = await fit(layer, { x, y }, { steps: 150, learningRate: 0.03 });
  expect(losses).toHaveLength(150);
  expect(losses.at(-1)!).toBeLessThan(1e-3 * losses[0]!);
  expect(layer.base().weight.data).toEqual(bytes);
  expect(difference(layer.forward(x), y)).toBeLessThan(0.1);
});

it("refuses options that it does not have, from plain JavaScript, with the nearest", () => {
  const refused = (make: () => unknown): unknown => {
    try {
      return make();
    } catch (error) {
      return error;
    }
  };
  const extra = (options: object): never => options as never;
  const sizes = { inFeatures: 4, outFeatures: 3 };
  expect(
    refused(() => new LoraLinear(extra({ ...sizes, rank: 8, lora_alpha: 2, seeed: 1, x: 1 }))),
  ).toMatchObject({
    code: "layer-options",
    message:
      'Expected options of the layer, got "rank" (did you mean "r"?), "lora_alpha" (did you mean "alpha"?), "seeed" (did you mean "seed"?), "x" (did you mean "r"?)',
    hint: expect.stringMatching(/^There are inFeatures, outFeatures, r, alpha, /) as string,
  });
  expect(refused(() => new LoraLinear(extra({ in_features: 4, outFeatures: 3 })))).toMatchObject({
    message: 'Expected options of the layer, got "in_features" (did you mean "inFeatures"?)',
  });
  expect(
    refused(() => new LoraEmbedding(extra({ numEmbeddings: 4, embeddingDim: 3, dropout: 0.1 }))),
  ).toMatchObject({
    message: expect.stringContaining('"dropout"') as string,
  });
  for (const Conv of [LoraConv1d, LoraConv2d])
    expect(
      refused(() => new Conv(extra({ inChannels: 2, outChannels: 2, kernelSize: 3, pading: 1 }))),
    ).toMatchObject({
      message: 'Expected options of the layer, got "pading" (did you mean "padding"?)',
    });
});
