import { LorikeetError } from "../../errors.ts";
import { type Graph, rootsOf, topological } from "../../ir/graph.ts";
import { isTrainable } from "../../ops/leaf.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import { Caches, cacheShapesOf } from "../caches.ts";
import type { AdamWStep, Engine, Program, Tensors, WeightSource } from "../backend.ts";
import { interpret } from "./interpret.ts";

/** What the engine keeps between runs. */
interface Store {
  readonly weights: WeightSource;
  readonly state: Map<string, Tensor>;
  /** Shapes of the parameters of graphs that were compiled. */
  readonly shapes: Map<string, readonly number[]>;
  readonly caches: Caches;
}

/** An engine that computes everything in float64 with plain loops. Slow; what the others are compared with. */
export function referenceEngine(weights: WeightSource): Engine {
  const store: Store = { weights, state: new Map(), shapes: new Map(), caches: new Caches() };
  return {
    name: "reference",
    compile: (graph) => compile(store, graph),
    get: (name) => Promise.resolve(read(store, name)),
    set(name, value) {
      const data = Float64Array.from(value.data as Float64Array, Number);
      store.state.set(name, { dtype: "f64", shape: value.shape, data });
      return Promise.resolve();
    },
    applyGradients: (update) => applyGradients(store, update),
    clearGradients: () => clearGradients(store),
    dispose() {
      store.state.clear();
      return Promise.resolve();
    },
  };
}

function read({ state, shapes }: Store, name: string): Tensor {
  const known = state.get(name);
  if (known) return known;
  const parameter = name.replace(/\.(grad|exp_avg|exp_avg_sq)$/, "");
  if (parameter === name || !shapes.has(parameter))
    throw new LorikeetError("missing-weight", `Expected a value for ${name}; none was set`);
  return tensor("f64", shapes.get(parameter)!);
}

async function compile(store: Store, graph: Graph): Promise<Program> {
  const { weights, shapes, caches } = store;
  const frozen = new Map<string, Tensor>();
  for (const node of topological(rootsOf(graph))) {
    if (isTrainable(node)) shapes.set(node.name!, node.shape);
    else if (node.op.name === "parameter") frozen.set(node.name!, await weights.read(node.name!));
  }
  const cacheShapes = cacheShapesOf(graph);
  const run = (feeds: Tensors): Promise<Record<string, Tensor>> => {
    const cached = caches.feeds(cacheShapes);
    const values = interpret(
      rootsOf(graph),
      (name) => cached[name] ?? feeds[name] ?? frozen.get(name) ?? read(store, name),
    );
    const tensors = values.map(({ shape, data }) => tensor("f64", shape, data));
    const outputs = Object.keys(graph.outputs).map((name, i) => [name, tensors[i]!] as const);
    for (const [i, name] of Object.keys(graph.gradients).entries())
      accumulate(store, `${name}.grad`, tensors[outputs.length + i]!);
    const offset = Number(feeds["cache_offset"]?.data[0] ?? 0);
    const fresh = Object.keys(graph.caches ?? {});
    for (const [i, name] of fresh.entries())
      caches.store(name, tensors[tensors.length - fresh.length + i]!, offset);
    return Promise.resolve(Object.fromEntries(outputs));
  };
  return { run, dispose: () => Promise.resolve() };
}

function accumulate(store: Store, name: string, part: Tensor): void {
  const sum = read(store, name);
  const data = (sum.data as Float64Array).map((value, i) => value + Number(part.data[i]!));
  store.state.set(name, tensor("f64", sum.shape, data));
}

async function applyGradients(store: Store, update: AdamWStep): Promise<{ gradNorm: number }> {
  const { state, shapes } = store;
  const names = [...shapes.keys()].filter((name) => state.has(`${name}.grad`));
  let squares = 0;
  for (const name of names)
    for (const g of state.get(`${name}.grad`)!.data) squares += Number(g) ** 2;
  const { lossScale = 1, maxGradNorm } = update;
  const gradNorm = Math.sqrt(squares) / lossScale;
  const clip = Math.min(1, maxGradNorm / (gradNorm + 1e-6)) / lossScale;
  if (Number.isFinite(gradNorm)) for (const name of names) adamW(store, name, clip, update);
  await clearGradients(store);
  return { gradNorm };
}

function adamW(store: Store, name: string, clip: number, update: AdamWStep): void {
  const { betas, eps, step, weightDecay } = update;
  const lr = update.learningRate * (update.learningRateScales?.[name] ?? 1);
  const [p, g, m, v] = ["", ".grad", ".exp_avg", ".exp_avg_sq"].map((part) =>
    Float64Array.from(read(store, name + part).data as Float64Array),
  ) as [Float64Array, Float64Array, Float64Array, Float64Array];
  for (let i = 0; i < p.length; i++) {
    const gradient = g[i]! * clip;
    m[i] = betas[0] * m[i]! + (1 - betas[0]) * gradient;
    v[i] = betas[1] * v[i]! + (1 - betas[1]) * gradient ** 2;
    const direction =
      m[i]! / (1 - betas[0] ** step) / (Math.sqrt(v[i]! / (1 - betas[1] ** step)) + eps);
    p[i] = p[i]! * (1 - lr * weightDecay) - lr * direction;
  }
  const shape = store.shapes.get(name)!;
  store.state.set(name, tensor("f64", shape, p));
  store.state.set(`${name}.exp_avg`, tensor("f64", shape, m));
  store.state.set(`${name}.exp_avg_sq`, tensor("f64", shape, v));
}

function clearGradients({ state, shapes }: Store): Promise<void> {
  for (const name of shapes.keys()) state.delete(`${name}.grad`);
  return Promise.resolve();
}
