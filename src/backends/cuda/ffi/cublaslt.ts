/** @file cuBLASLt: matrix products with a choice of algorithms. */
import { LorikeetError } from "../../../errors.ts";
import { bind, type Bound, checked, type Library, openLibrary } from "./library.ts";

const SIGNATURES = {
  cublasLtCreate: ["int", "ptr"],
  cublasLtMatmulDescCreate: ["int", "ptr", "int", "int"],
  cublasLtMatmulDescDestroy: ["int", "uint64_t"],
  cublasLtMatmulDescSetAttribute: ["int", "uint64_t", "int", "ptr", "size_t"],
  cublasLtMatrixLayoutCreate: ["int", "ptr", "int", "uint64_t", "uint64_t", "int64_t"],
  cublasLtMatrixLayoutDestroy: ["int", "uint64_t"],
  cublasLtMatrixLayoutSetAttribute: ["int", "uint64_t", "int", "ptr", "size_t"],
  cublasLtMatmulPreferenceCreate: ["int", "ptr"],
  cublasLtMatmulPreferenceDestroy: ["int", "uint64_t"],
  cublasLtMatmulPreferenceSetAttribute: ["int", "uint64_t", "int", "ptr", "size_t"],
  cublasLtMatmulAlgoGetHeuristic: [
    "int",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "int",
    "ptr",
    "ptr",
  ],
  cublasLtMatmul: [
    "int",
    "uint64_t",
    "uint64_t",
    "ptr",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "ptr",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "uint64_t",
    "ptr",
    "uint64_t",
    "size_t",
    "uint64_t",
  ],
} as const;

/** cuBLASLt with an open handle. */
export interface CublasLt {
  readonly library: Library;
  readonly version: string;
  readonly handle: bigint;
  readonly call: Bound<typeof SIGNATURES>;
  readonly raw: Bound<typeof SIGNATURES>;
}

/** cudaDataType values. */
export const DATA_TYPE = { f32: 0, f16: 2, bf16: 14, f8_e4m3: 28, f8_e5m2: 29 } as const;
/** cublasComputeType_t: float32 arithmetic, or TF32 inside the tensor cores. */
export const COMPUTE = { f32: 68, tf32: 77 } as const;
/** cublasLtMatmulDescAttributes_t. */
export const DESC = {
  transA: 3,
  transB: 4,
  scaleA: 17,
  scaleB: 18,
  fastAccumulate: 25,
  scaleModeA: 31,
  scaleModeB: 32,
} as const;
/** cublasLtMatrixLayoutAttribute_t. */
export const LAYOUT = { batchCount: 5, batchStride: 6 } as const;
/** cublasLtMatmulPreferenceAttributes_t; `alignments` of a, b, c and d. */
export const PREFERENCE = {
  maxWorkspace: 1,
  reductionSchemes: 3,
  alignments: [5, 6, 7, 8],
} as const;
/** Bytes of cublasLtMatmulHeuristicResult_t, and where its fields are. */
export const HEURISTIC = { bytes: 96, workspace: 64, state: 72 } as const;

let cublasLt: CublasLt | undefined;

/** @throws LorikeetError `cuda-library` when cuBLAS is not installed */
export function openCublasLt(): CublasLt {
  if (cublasLt) return cublasLt;
  const library = openLibrary(
    "cuBLASLt",
    ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
    "Install the CUDA toolkit (12.4 or later), or `pip install nvidia-cublas`.",
  );
  const raw = bind(library, SIGNATURES);
  const statusText = library.find("cublasLtGetStatusString", "str", ["int"]);
  const call = checked(raw, (name, status) => {
    const text = String(statusText?.(status) ?? "unknown error");
    return new LorikeetError("cuda-gemm", `${name} failed with status ${status}: ${text}`, {
      hint: "Out of memory or mismatched CUDA libraries are the usual causes; see `lorikeet doctor`.",
    });
  });
  const out = new BigUint64Array(1);
  call.cublasLtCreate(out);
  const version = library.find("cublasLtGetVersion", "size_t", [])?.() ?? 0;
  cublasLt = { library, version: formatVersion(version), handle: out[0]!, call, raw };
  return cublasLt;
}

function formatVersion(version: number): string {
  return `${Math.floor(version / 10000)}.${Math.floor(version / 100) % 100}.${version % 100}`;
}
