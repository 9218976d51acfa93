/** @file cuDNN's backend interface: descriptors with attributes, put together into operation graphs and plans. */
import { LorikeetError } from "../../../errors.ts";
import { allocateNative, bind, type Bound, type Library, openLibrary } from "./library.ts";
import { openCompiler } from "./nvrtc.ts";

const SIGNATURES = {
  cudnnCreate: ["int", "ptr"],
  cudnnSetStream: ["int", "uint64_t", "uint64_t"],
  cudnnGetLastErrorString: ["void", "ptr", "size_t"],
  cudnnBackendCreateDescriptor: ["int", "int", "ptr"],
  cudnnBackendSetAttribute: ["int", "uint64_t", "int", "int", "int64_t", "ptr"],
  cudnnBackendGetAttribute: ["int", "uint64_t", "int", "int", "int64_t", "ptr", "ptr"],
  cudnnBackendFinalize: ["int", "uint64_t"],
  cudnnBackendExecute: ["int", "uint64_t", "uint64_t", "uint64_t"],
  cudnnBackendDestroyDescriptor: ["int", "uint64_t"],
} as const;

/** cudnnBackendDescriptorType_t. */
export const DESCRIPTOR = {
  pointwise: 0,
  engineConfig: 3,
  heuristics: 4,
  plan: 5,
  operationPointwise: 13,
  operationGraph: 15,
  variantPack: 16,
  tensor: 17,
  matmul: 18,
  operationMatmul: 19,
  reduction: 21,
  operationReduction: 22,
  operationReshape: 31,
} as const;
/** cudnnBackendAttributeType_t. */
export const TYPE = {
  handle: 0,
  dataType: 1,
  boolean: 2,
  int64: 3,
  pointer: 6,
  heuristicMode: 8,
  pointwiseMode: 14,
  descriptor: 15,
  reductionOperator: 18,
} as const;
/** cudnnDataType_t. */
export const DATA = { f32: 0, f16: 2, i32: 4, bf16: 9, boolean: 11 } as const;
/** cudnnPointwiseMode_t. */
export const MODE = {
  add: 0,
  mul: 1,
  div: 6,
  sub: 9,
  exp: 13,
  log: 15,
  identity: 21,
  greaterEqual: 303,
  index: 501,
  select: 601,
} as const;

/** cuDNN with an open handle. */
export interface Cudnn {
  readonly library: Library;
  /** For example 91900 for 9.19.0. */
  readonly version: number;
  readonly handle: bigint;
  readonly raw: Bound<typeof SIGNATURES>;
}

let cudnn: Cudnn | undefined;

/** @throws LorikeetError `cuda-library` when cuDNN 9 is not installed, `cuda-attention` when it does not start */
export function openCudnn(): Cudnn {
  if (cudnn) return cudnn;
  openCompiler(); // cuDNN looks for NVRTC among the libraries that are open
  const library = openLibrary(
    "cuDNN",
    ["libcudnn.so.9"],
    "Install cuDNN 9, or `pip install nvidia-cudnn-cu13`; attention then is faster.",
  );
  const raw = bind(library, SIGNATURES);
  const version = library.find("cudnnGetVersion", "size_t", [])?.() ?? 0;
  const out = new BigUint64Array(1);
  check(raw, raw.cudnnCreate(out), "cudnnCreate");
  cudnn = { library, version, handle: out[0]!, raw };
  return cudnn;
}

const CURRENT = "Install a current cuDNN; `lorikeet doctor` lists what was found.";

function check(raw: Bound<typeof SIGNATURES>, status: number, doing: string): void {
  if (status === 0) return;
  const text = new Uint8Array(1024);
  raw.cudnnGetLastErrorString(text, text.length);
  const message = new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
  throw new LorikeetError(
    "cuda-attention",
    `cuDNN: ${doing} failed with status ${status}: ${message || "no further text"}`,
    { hint: CURRENT },
  );
}

/** A value of an attribute: its type and elements. */
type Attribute = readonly [name: number, type: number, values: readonly (number | bigint)[]];

/** Elements of an attribute as C stores them. */
function elements(type: number, values: readonly (number | bigint)[]): ArrayBufferView {
  if (type === TYPE.int64) return BigInt64Array.from(values, BigInt);
  if (type === TYPE.handle || type === TYPE.descriptor || type === TYPE.pointer)
    return BigUint64Array.from(values, BigInt);
  if (type === TYPE.boolean) return Uint8Array.from(values, Number);
  return Int32Array.from(values, Number);
}

/** A finalized descriptor with `attributes`. */
export function descriptor({ raw }: Cudnn, type: number, attributes: readonly Attribute[]): bigint {
  const handle = open(raw, type);
  for (const [name, kind, values] of attributes)
    check(
      raw,
      raw.cudnnBackendSetAttribute(handle, name, kind, values.length, elements(kind, values)),
      `attribute ${name} of descriptor ${type}`,
    );
  check(raw, raw.cudnnBackendFinalize(handle), `finalizing descriptor ${type}`);
  return handle;
}

function open(raw: Bound<typeof SIGNATURES>, type: number): bigint {
  const out = new BigUint64Array(1);
  check(raw, raw.cudnnBackendCreateDescriptor(type, out), `creating descriptor ${type}`);
  return out[0]!;
}

/** An execution plan of an operation graph. */
export interface CudnnPlan {
  readonly workspaceBytes: number;
  /** Runs on `stream` with an address for each tensor id. */
  execute(pointers: ReadonlyMap<number, number>, workspace: number, stream: bigint): void;
}

const HEURISTIC_MODES = [3, 2] as const; // A, then the fallback list

/**
 * The first plan that cuDNN's heuristics offer and that finalizes.
 * @throws LorikeetError `cuda-attention` when no engine takes the graph
 */
export function planOperations(library: Cudnn, operations: readonly bigint[]): CudnnPlan {
  const { handle } = library;
  const graph = descriptor(library, DESCRIPTOR.operationGraph, [
    [800, TYPE.handle, [handle]],
    [801, TYPE.descriptor, operations],
  ]);
  let failure: unknown = new LorikeetError(
    "cuda-attention",
    "cuDNN: no engine takes this attention graph",
    { hint: CURRENT },
  );
  for (const mode of HEURISTIC_MODES) {
    for (const config of configsOf(library, graph, mode)) {
      try {
        return finishPlan(library, config);
      } catch (error) {
        failure = error;
      }
    }
  }
  throw failure as Error;
}

function configsOf(library: Cudnn, graph: bigint, mode: number): bigint[] {
  const { raw } = library;
  const COUNT = 8;
  const configs = Array.from({ length: COUNT }, () => open(raw, DESCRIPTOR.engineConfig));
  try {
    const heuristics = descriptor(library, DESCRIPTOR.heuristics, [
      [201, TYPE.descriptor, [graph]],
      [200, TYPE.heuristicMode, [mode]],
    ]);
    const count = new BigInt64Array(1);
    const list = BigUint64Array.from(configs);
    check(
      raw,
      raw.cudnnBackendGetAttribute(heuristics, 202, TYPE.descriptor, COUNT, count, list),
      "asking for engines",
    );
    return configs.slice(0, Number(count[0]));
  } catch {
    return [];
  }
}

function finishPlan(library: Cudnn, config: bigint): CudnnPlan {
  const { raw, handle } = library;
  const plan = descriptor(library, DESCRIPTOR.plan, [
    [400, TYPE.handle, [handle]],
    [401, TYPE.descriptor, [config]],
  ]);
  const [count, bytes] = [new BigInt64Array(1), new BigInt64Array(1)];
  check(
    raw,
    raw.cudnnBackendGetAttribute(plan, 402, TYPE.int64, 1, count, bytes),
    "asking for the workspace",
  );
  return {
    workspaceBytes: Number(bytes[0]),
    execute(pointers, workspace, stream) {
      check(raw, raw.cudnnSetStream(handle, stream), "setting the stream");
      const pack = descriptor(library, DESCRIPTOR.variantPack, [
        [1000, TYPE.int64, [...pointers.keys()]],
        [1001, TYPE.pointer, [...pointers.values()]],
        [1003, TYPE.pointer, [workspace]],
      ]);
      check(raw, raw.cudnnBackendExecute(handle, plan, pack), "running attention");
      raw.cudnnBackendDestroyDescriptor(pack);
    },
  };
}

/** A float that a graph takes by value: its host address must stay valid. */
export function hostFloat(value: number): number {
  const memory = allocateNative(16);
  new Float32Array(memory.buffer, 0, 1)[0] = value;
  return memory.address;
}
