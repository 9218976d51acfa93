/** @file Matrix products by cuBLASLt: row-major descriptions, algorithms chosen by timing, choices kept for the process. */
import { LorikeetError } from "../../errors.ts";
import type { Device } from "./device.ts";
import { allocateDevice, timeOnDevice } from "./device.ts";
import {
  COMPUTE,
  type CublasLt,
  DATA_TYPE,
  DESC,
  HEURISTIC,
  LAYOUT,
  openCublasLt,
  PREFERENCE,
} from "./ffi/cublaslt.ts";

type GemmType = "bf16" | "f16" | "f32";
/** 8-bit operands, whose rows have factors: `scaleA` and `scaleB` of the operands, float32. */
type OperandType = GemmType | "f8_e4m3";

/** d (M, N) = alpha · a·b + beta · c, row-major; `ld` are elements from row to row as stored. */
export interface GemmSpec {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  /** a is stored (K, M). */
  readonly transA: boolean;
  /** b is stored (N, K). */
  readonly transB: boolean;
  readonly type: OperandType;
  /** Type of c and d. */
  readonly outType: GemmType;
  readonly lda: number;
  readonly ldb: number;
  readonly ldc: number;
  readonly ldd: number;
  readonly alpha: number;
  readonly beta: number;
  /** Products of equal shape that follow each other at these strides, in elements. */
  readonly batch?: {
    readonly count: number;
    readonly a: number;
    readonly b: number;
    readonly c: number;
    readonly d: number;
  };
}

/** Addresses of the operands of one product. */
export interface GemmOperands {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
  /** Factors of the rows of a, and of b as it is stored, for 8-bit operands. */
  readonly scaleA?: number;
  readonly scaleB?: number;
}

/** A product ready to run. */
export interface Gemm {
  enqueue(operands: GemmOperands): void;
  /** Milliseconds, when it was timed. */
  readonly milliseconds: number;
}

const WORKSPACE = 64 << 20;
const CANDIDATES = 12;
const ROUNDS = 7;
const MIN_FLOPS_TO_TIME = 1e7;
const REDUCTION_IN_COMPUTE_TYPE = 2;
const SCALE_OF_ROWS = 3;
/** The library takes addresses to be multiples of this, unless it is told otherwise. */
const ALIGNMENT = 256;

/** Products of one device: descriptors and chosen algorithms by spec. */
export interface GemmPlanner {
  /**
   * The product of `spec`; candidates are timed on `operands`, whose result is overwritten.
   * @throws LorikeetError `cuda-gemm` when cuBLASLt has no algorithm for it
   */
  plan(spec: GemmSpec, operands: GemmOperands): Gemm;
}

interface Descriptors {
  readonly operation: bigint;
  readonly a: bigint;
  readonly b: bigint;
  readonly c: bigint;
  readonly d: bigint;
}

export function gemmPlanner(device: Device): GemmPlanner {
  const lt = openCublasLt();
  const workspace = allocateDevice(device, WORKSPACE, "the workspace of matrix products");
  const known = new Map<string, Gemm>();
  return {
    plan(spec, operands) {
      const key = JSON.stringify([spec, alignmentsOf(operands)]);
      const found = known.get(key);
      if (found) return found;
      const gemm = choose({ lt, device, workspace }, spec, operands);
      known.set(key, gemm);
      return gemm;
    },
  };
}

function choose(
  { lt, device, workspace }: { lt: CublasLt; device: Device; workspace: number },
  spec: GemmSpec,
  operands: GemmOperands,
): Gemm {
  const descriptors = describe(lt, spec);
  device.releases.add(() => {
    destroy(lt, descriptors);
  });
  setScales(lt, descriptors, operands);
  const algorithms = heuristics(lt, descriptors, alignmentsOf(operands));
  if (algorithms.length === 0)
    throw new LorikeetError(
      "cuda-gemm",
      `cuBLASLt ${lt.version} has no algorithm for ${JSON.stringify(spec)}`,
      {
        hint: "Install a newer cuBLAS, or use `--base-dtype f32`.",
      },
    );
  const scalars = [Float32Array.of(spec.alpha), Float32Array.of(spec.beta)] as const;
  const runner =
    (algorithm: Uint8Array) =>
    (at: GemmOperands): void => {
      const { operation, a, b, c, d } = descriptors;
      setScales(lt, descriptors, at);
      const bytes = Number(
        new BigUint64Array(algorithm.buffer, algorithm.byteOffset + HEURISTIC.workspace, 1)[0],
      );
      // column-major libraries see row-major matrices transposed: dᵀ = bᵀ·aᵀ
      lt.call.cublasLtMatmul(
        ...([lt.handle, operation, scalars[0], at.b, b, at.a, a, scalars[1]] as const),
        ...([at.c, c, at.d, d, algorithm, workspace, bytes, device.stream] as const),
      );
    };
  const flops = 2 * spec.M * spec.N * spec.K * (spec.batch?.count ?? 1);
  if (algorithms.length === 1 || flops < MIN_FLOPS_TO_TIME)
    return { enqueue: runner(algorithms[0]!), milliseconds: 0 };
  return fastest(device, algorithms.map(runner), operands);
}

/** The library's first operand is our b; the pointers are read when a call is put on the stream. */
function setScales({ call }: CublasLt, { operation }: Descriptors, at: GemmOperands): void {
  if (at.scaleA === undefined || at.scaleB === undefined) return;
  const set = (attribute: number, address: number): void =>
    void call.cublasLtMatmulDescSetAttribute(
      ...([operation, attribute, BigUint64Array.of(BigInt(address)), 8] as const),
    );
  set(DESC.scaleA, at.scaleB);
  set(DESC.scaleB, at.scaleA);
}

/** The candidate with the smallest median time. They take turns, so that all see the same clocks. */
function fastest(
  device: Device,
  candidates: readonly ((at: GemmOperands) => void)[],
  operands: GemmOperands,
): Gemm {
  const usable = candidates.filter((enqueue) => isUsable(enqueue, operands));
  const times = usable.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++)
    usable.forEach((enqueue, i) =>
      times[i]!.push(
        timeOnDevice(device, () => {
          enqueue(operands);
        }),
      ),
    );
  const medians = times.map((each) => each.sort((x, y) => x - y)[Math.floor(ROUNDS / 2)]!);
  const milliseconds = Math.min(...medians);
  return { enqueue: usable[medians.indexOf(milliseconds)] ?? candidates[0]!, milliseconds };
}

/** Runs a candidate once: some algorithms refuse what the heuristic offered them for. */
function isUsable(enqueue: (at: GemmOperands) => void, operands: GemmOperands): boolean {
  try {
    enqueue(operands);
    return true;
  } catch {
    return false;
  }
}

function describe({ call }: CublasLt, spec: GemmSpec): Descriptors {
  const out = new BigUint64Array(1);
  const int = (value: boolean | number): Int32Array => Int32Array.of(Number(value));
  call.cublasLtMatmulDescCreate(out, COMPUTE.f32, DATA_TYPE.f32);
  const operation = out[0]!;
  call.cublasLtMatmulDescSetAttribute(operation, DESC.transA, int(spec.transB), 4);
  call.cublasLtMatmulDescSetAttribute(operation, DESC.transB, int(spec.transA), 4);
  if (spec.type === "f8_e4m3") {
    call.cublasLtMatmulDescSetAttribute(operation, DESC.scaleModeA, int(SCALE_OF_ROWS), 4);
    call.cublasLtMatmulDescSetAttribute(operation, DESC.scaleModeB, int(SCALE_OF_ROWS), 4);
    call.cublasLtMatmulDescSetAttribute(operation, DESC.fastAccumulate, Int8Array.of(1), 1);
  }
  const layout = (type: OperandType, [rows, columns]: Sides, ld: number, stride = 0): bigint => {
    call.cublasLtMatrixLayoutCreate(out, DATA_TYPE[type], columns, rows, ld);
    const handle = out[0]!;
    if (!spec.batch) return handle;
    const [count, elements] = [int(spec.batch.count), BigInt64Array.of(BigInt(stride))];
    call.cublasLtMatrixLayoutSetAttribute(handle, LAYOUT.batchCount, count, 4);
    call.cublasLtMatrixLayoutSetAttribute(handle, LAYOUT.batchStride, elements, 8);
    return handle;
  };
  const { M, N, K, type, outType, batch } = spec;
  return {
    operation,
    a: layout(type, turned([M, K], spec.transA), spec.lda, batch?.a),
    b: layout(type, turned([K, N], spec.transB), spec.ldb, batch?.b),
    c: layout(outType, [M, N], spec.ldc, batch?.c),
    d: layout(outType, [M, N], spec.ldd, batch?.d),
  };
}

function destroy({ raw }: CublasLt, { operation, a, b, c, d }: Descriptors): void {
  raw.cublasLtMatmulDescDestroy(operation);
  for (const layout of [a, b, c, d]) raw.cublasLtMatrixLayoutDestroy(layout);
}

type Sides = readonly [rows: number, columns: number];

/** Sides of a matrix as it is stored. */
function turned([rows, columns]: Sides, isTransposed: boolean): Sides {
  return isTransposed ? [columns, rows] : [rows, columns];
}

/** The largest power of two, up to `ALIGNMENT`, that divides each address: of the library's a (our b), b, c and d. */
function alignmentsOf({ a, b, c, d }: GemmOperands): number[] {
  return [b, a, c, d].map((address) => {
    let bytes = 1;
    while (bytes < ALIGNMENT && address % (2 * bytes) === 0) bytes *= 2;
    return bytes;
  });
}

function heuristics(
  lt: CublasLt,
  { operation, a, b, c, d }: Descriptors,
  alignments: readonly number[],
): Uint8Array[] {
  const out = new BigUint64Array(1);
  lt.call.cublasLtMatmulPreferenceCreate(out);
  const preference = out[0]!;
  const set = (attribute: number, value: ArrayBufferView): void =>
    void lt.call.cublasLtMatmulPreferenceSetAttribute(
      ...([preference, attribute, value, value.byteLength] as const),
    );
  set(PREFERENCE.maxWorkspace, BigUint64Array.of(BigInt(WORKSPACE)));
  // parts of a split sum are added in float32, never in the type of the result
  set(PREFERENCE.reductionSchemes, Uint32Array.of(REDUCTION_IN_COMPUTE_TYPE));
  for (const [i, bytes] of alignments.entries())
    if (bytes < ALIGNMENT) set(PREFERENCE.alignments[i]!, Uint32Array.of(bytes));
  const results = new Uint8Array(HEURISTIC.bytes * CANDIDATES);
  const count = new Int32Array(1);
  const status = lt.raw.cublasLtMatmulAlgoGetHeuristic(
    lt.handle,
    operation,
    b,
    a,
    c,
    d,
    preference,
    CANDIDATES,
    results,
    count,
  );
  lt.call.cublasLtMatmulPreferenceDestroy(preference);
  if (status !== 0) return [];
  return Array.from({ length: count[0]! }, (_, i) =>
    results.slice(i * HEURISTIC.bytes, (i + 1) * HEURISTIC.bytes),
  ).filter((result) => new Int32Array(result.buffer, HEURISTIC.state, 1)[0] === 0);
}
