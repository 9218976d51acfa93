/** @file NCCL: sums over GPUs, one process each. */
import { LorikeetError } from "../../../errors.ts";
import { bind, type Bound, checked, type Library, openLibrary } from "./library.ts";

const SIGNATURES = {
  ncclGetVersion: ["int", "ptr"],
  ncclGetUniqueId: ["int", "ptr"],
  ncclCommInitRankScalable: ["int", "ptr", "int", "int", "int", "ptr", "ptr"],
  ncclAllReduce: ["int", "uint64_t", "uint64_t", "size_t", "int", "int", "uint64_t", "uint64_t"],
  ncclCommGetAsyncError: ["int", "uint64_t", "ptr"],
  ncclCommDestroy: ["int", "uint64_t"],
  ncclCommAbort: ["int", "uint64_t"],
} as const;

/** ncclDataType_t. */
export const NCCL_TYPE = { f32: 7, f64: 8 } as const;
/** Bytes of ncclUniqueId. */
export const UNIQUE_ID_BYTES = 128;

/** NCCL's functions, which throw on any status but success. */
export interface Nccl {
  readonly library: Library;
  readonly version: string;
  readonly call: Bound<typeof SIGNATURES>;
  readonly raw: Bound<typeof SIGNATURES>;
}

let nccl: Nccl | undefined;

/** @throws LorikeetError `cuda-library` when NCCL is not installed, or is older than 2.23 */
export function openNccl(): Nccl {
  if (nccl) return nccl;
  const library = openLibrary(
    "NCCL",
    ["libnccl.so.2", "libnccl.so"],
    "Install NCCL 2.23 or later, or `pip install nvidia-nccl-cu13`. One GPU works without.",
  );
  const text = library.find("ncclGetErrorString", "str", ["int"]);
  const last = library.find("ncclGetLastError", "str", ["uint64_t"]);
  const raw = bind(library, SIGNATURES);
  const call = checked(raw, (name, status) => {
    const parts = [text?.(status), last?.(0)].map((part) => String(part ?? "")).filter(Boolean);
    return new LorikeetError("nccl", `${name} failed with status ${status}: ${parts.join("; ")}`, {
      hint: "Each process needs a GPU of its own, and must reach rank 0's address. NCCL_DEBUG=INFO tells more.",
    });
  });
  const version = new Int32Array(1);
  call.ncclGetVersion(version);
  nccl = { library, version: formatVersion(version[0]!), call, raw };
  return nccl;
}

function formatVersion(version: number): string {
  return `${Math.floor(version / 10000)}.${Math.floor(version / 100) % 100}.${version % 100}`;
}
