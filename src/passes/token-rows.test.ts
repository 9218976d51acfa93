import { expect, it } from "vitest";
import { interpret } from "../backends/reference/interpret.ts";
import { topological } from "../ir/graph.ts";
import { verify } from "../ir/verify.ts";
import { add } from "../ops/add.ts";
import { embedding } from "../ops/embedding.ts";
import { input, isTrainable, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { Random } from "../tensor/random.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { gradient } from "./gradient.ts";
import { replaceWeights, weightsByUse } from "./replace-weights.ts";
import { insertTokenRows } from "./token-rows.ts";

const [V, C] = [6, 3];
const random = new Random(1);
const values = (shape: number[]): Tensor =>
  tensor(
    "f64",
    shape,
    Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal()),
  );
const table = parameter("embed.weight", [V, C]);
const ids = input("ids", [2, 2], "i64");
const hidden = embedding(input("flat", [4], "i64"), table);
const logits = linear(hidden, table, { module: "lm_head" });
const feeds: Record<string, Tensor> = {
  "embed.weight": values([V, C]),
  rows: values([2, C]),
  head: values([V, C]),
  flat: tensor("i64", [4], BigInt64Array.of(0n, 4n, 2n, 4n)),
  ids: tensor("i64", [2, 2], BigInt64Array.of(0n, 4n, 2n, 4n)),
};
const run = (...roots: Parameters<typeof interpret>[0]): Float64Array[] =>
  interpret(roots, (name) => feeds[name]!).map(({ data }) => data);

/** The table with rows 4 and 1 replaced. */
function replaced(): Tensor {
  const whole = Float64Array.from(feeds["embed.weight"]!.data as Float64Array);
  const rows = feeds["rows"]!.data as Float64Array;
  whole.set(rows.subarray(0, C), 4 * C);
  whole.set(rows.subarray(C), 1 * C);
  return tensor("f64", [V, C], whole);
}

it("replaces rows of an embedding and of the head that shares its matrix; gradients reach those rows alone", () => {
  const rows = { indices: [4, 1], name: "rows" };
  const roots = [logits, embedding(ids, table)];
  const [own, embedded] = insertTokenRows(roots, (module) =>
    ["embed", "lm_head"].includes(module) ? rows : undefined,
  );
  verify([own!, embedded!]);
  const [got, gotRows] = run(own!, embedded!);
  const whole = replaced();
  const [want, wantRows] = interpret(roots, (name) =>
    name === "embed.weight" ? whole : feeds[name]!,
  );
  expect(gotRows).toEqual(wantRows!.data);
  got!.forEach((value, i) => expect(value).toBeCloseTo(want!.data[i]!, 12));
  // d(Σ logits · weights) against the gradient of the whole matrix
  const params = topological([own!]).filter(isTrainable);
  expect(params.map(({ name }) => name)).toEqual(["rows"]);
  const weights = input("weights", logits.shape);
  feeds["weights"] = values([...logits.shape]);
  const slope = gradient(reduceSum(mul(own!, weights), { axes: [0, 1] }), params).gradients[0]!;
  const full = parameter("embed.weight", [V, C], { trainable: true });
  const plain = linear(embedding(input("flat", [4], "i64"), full), full);
  const dense = gradient(reduceSum(mul(plain, weights), { axes: [0, 1] }), [full]).gradients[0]!;
  const [wanted] = interpret([dense], (name) => (name === "embed.weight" ? whole : feeds[name]!));
  const [gradientRows] = run(slope);
  for (const [slot, row] of rows.indices.entries())
    for (let c = 0; c < C; c++)
      expect(gradientRows![slot * C + c]).toBeCloseTo(wanted!.data[row * C + c]!, 12);
});

it("leaves the head alone when only the embedding's rows train", () => {
  const [own] = insertTokenRows([logits], (module) =>
    module === "embed" ? { indices: [4, 1], name: "rows" } : undefined,
  );
  const head = own!;
  expect(head.op).toBe(linear.rules);
  expect(head.inputs[1]).toBe(table);
});

it("replaces a weight in one of the modules that share it", () => {
  expect([...weightsByUse([logits]).keys()]).toEqual(["embed.weight", "lm_head.weight"]);
  const [own] = replaceWeights([add(logits, logits)], (use) =>
    use === "lm_head.weight" ? "head" : undefined,
  );
  verify([own!]);
  expect(
    topological([own!])
      .filter(isTrainable)
      .map(({ name }) => name),
  ).toEqual(["head"]);
  const plain = linear(embedding(input("flat", [4], "i64"), table), parameter("head", [V, C]));
  const [got, want] = run(own!, add(plain, plain));
  expect(got).toEqual(want);
});
