/** @file Plans graphs as the CUDA engine does, on no GPU: addresses without memory, no kernel is compiled or run. */
import type { WeightSource } from "../../src/backends/backend.ts";
import { cacheStore } from "../../src/backends/cuda/cache-store.ts";
import type { Device } from "../../src/backends/cuda/device.ts";
import { type Driver, out64 } from "../../src/backends/cuda/ffi/driver.ts";
import { type BuiltPlan, buildPlan } from "../../src/backends/cuda/plan/build.ts";
import type { EngineParts, GeneratedKernels } from "../../src/backends/cuda/plan/context.ts";
import type { Precision } from "../../src/backends/cuda/plan/graph.ts";
import { layOut, schedule } from "../../src/backends/cuda/plan/schedule.ts";
import { newValue, type Unit, type Value } from "../../src/backends/cuda/plan/value.ts";
import type { Quantization } from "../../src/backends/cuda/quantize.ts";
import type { TrainableState } from "../../src/backends/cuda/state.ts";
import { weightStore } from "../../src/backends/cuda/weights.ts";
import type { Graph } from "../../src/ir/graph.ts";
import type { Shape } from "../../src/tensor/shape.ts";

/** How a graph is planned. */
interface Options {
  readonly precision?: Precision;
  readonly quantization?: Quantization;
}

/** The units of `graph` in the order in which they would run, laid out in one arena. */
export function planned(
  graph: Graph,
  { precision = "bf16", quantization }: Options = {},
): { units: readonly Unit[]; plan: BuiltPlan; sources: readonly string[] } {
  const device = emptyDevice();
  const sources: string[] = [];
  const parts: EngineParts = {
    ...{ device, state: addressedState(), skinny: 0, caches: cacheStore(device) },
    weights: weightStore(device, noWeights, quantization),
    gemms: { plan: () => ({ enqueue: () => undefined, milliseconds: 0 }) },
  };
  const attention = (): ReturnType<Parameters<typeof buildPlan>[2]["attention"]> => ({
    name: "none",
    forward: () => ({ scratchBytes: 0, enqueue: () => undefined }),
    backward: () => ({ scratchBytes: 0, enqueue: () => undefined }),
  });
  const options = { precision, attention, kernels: kernelsInto(sources) };
  const plan = buildPlan(parts, graph, options);
  const units =
    schedule(plan.units) ??
    schedule(buildPlan(parts, graph, { ...options, isUnfused: true }).units);
  if (!units) throw new Error("expected units that can run one after another");
  layOut(units).place(2 ** 41);
  return { units, plan, sources };
}

function emptyDevice(): Device {
  let next = 2 ** 40;
  const raw = new Proxy({} as Driver["raw"], {
    get: (_, name) => (at: unknown, bytes: number) => {
      if (name === "cuMemAlloc_v2") [out64[0], next] = [BigInt(next), next + bytes];
      return at === undefined ? 1 : 0;
    },
  });
  const info = {
    ...{ index: 0, name: "none", capability: [9, 0] as const, multiprocessors: 132 },
    ...{ totalBytes: 2 ** 36, sharedBytes: 232448, l2Bytes: 2 ** 25 },
  };
  return { info, driver: { raw, call: raw }, stream: 0n, owned: new Set() } as unknown as Device;
}

const noWeights: WeightSource = {
  names: [],
  get(name) {
    throw new Error(`no weight ${name}`);
  },
  read: (name) => Promise.reject(new Error(`no weight ${name}`)),
};

/** Trainable parameters with places and nothing in them. */
function addressedState(): TrainableState {
  const shapes = new Map<string, Shape>();
  const values = new Map<string, Value>();
  const fixed = (key: string, shape: Shape, storage: Value["storage"]): Value => {
    const known = values.get(key);
    if (known) return known;
    const value = newValue(shape, storage);
    value.region = { ...value.region, address: 2 ** 39 + values.size * 2 ** 20, isPlanned: false };
    values.set(key, value);
    return value;
  };
  const state: Partial<TrainableState> = {
    declare(parameters) {
      for (const { name, shape } of parameters) shapes.set(name, shape);
    },
    has: (name) => shapes.has(name),
    value: (name, part) => fixed(name + part, shapes.get(name)!, "f32"),
    copyOf(name, storage, place) {
      const made = values.get(`copy ${name}`) ?? place?.();
      if (made) values.set(`copy ${name}`, made);
      return fixed(`copy ${name}`, shapes.get(name)!, storage);
    },
    transposedOf: (name) => fixed(`turned ${name}`, [...shapes.get(name)!].reverse(), "bf16"),
    expectGradient: () => undefined,
  };
  return state as TrainableState;
}

function kernelsInto(sources: string[]): GeneratedKernels {
  return {
    unit(name, { body, parameters }, stores) {
      sources.push(body);
      const writes = stores.map(({ value }) => value);
      const added = stores.filter(({ accumulate }) => accumulate).map(({ value }) => value);
      const reads = [...parameters.filter((value) => !writes.includes(value)), ...added];
      return { name, reads, writes, scratch: [], enqueue: () => undefined };
    },
  };
}
