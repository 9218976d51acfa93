/** @file Shared libraries and their functions. The only file that knows the foreign function package. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import koffi from "koffi";
import { LorikeetError } from "../../../errors.ts";
import { libraryFolders } from "./search.ts";

/** What a C function takes: numbers, pointers (as numbers or bigints), memory that is read or written during the call. */
export type Argument = number | bigint | string | readonly string[] | null | ArrayBufferView;
export type ForeignFunction = (...args: Argument[]) => number;

/** An opened shared library. */
export interface Library {
  /** Full path, or the name that the system loader resolved. */
  readonly path: string;
  /** The function `name`, or undefined when this version of the library has none. */
  find(name: string, result: string, parameters: readonly string[]): ForeignFunction | undefined;
}

/** C signatures by function name: result first, then parameters. `ptr` is any pointer. */
export type Signatures = Readonly<
  Record<string, readonly [result: string, ...parameters: string[]]>
>;

/** Functions of `T`, each of which must exist. */
export type Bound<T extends Signatures> = { readonly [K in keyof T]: ForeignFunction };

const opened = new Map<string, Library>();

/**
 * Opens the first of `names` that loads, by the system loader first and then in `libraryFolders()`.
 * @throws LorikeetError `cuda-library` with every place tried and why it failed
 */
export function openLibrary(purpose: string, names: readonly string[], hint: string): Library {
  const known = opened.get(names[0]!);
  if (known) return known;
  const failures: string[] = [];
  const folders = libraryFolders();
  for (const name of names) {
    const found = folders.map((folder) => join(folder, name)).filter((path) => existsSync(path));
    for (const path of [name, ...found]) {
      try {
        const library = wrap(path);
        opened.set(names[0]!, library);
        return library;
      } catch (error) {
        failures.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
  const searched = folders.length > 0 ? folders.join(", ") : "no other folder";
  throw new LorikeetError(
    "cuda-library",
    `Expected a library for ${purpose} (${names.join(" or ")}), none loads. Searched the system and ${searched}. ${failures.at(-1) ?? ""}`,
    { hint },
  );
}

function wrap(path: string): Library {
  const handle = koffi.load(path, { global: true });
  return {
    path,
    find(name, result, parameters) {
      const c = (type: string): string => (type === "ptr" ? "void *" : type);
      try {
        return handle.func(name, c(result), parameters.map(c));
      } catch {
        return undefined;
      }
    },
  };
}

/**
 * All functions of `signatures`.
 * @throws LorikeetError `cuda-library` when the library lacks one
 */
export function bind<T extends Signatures>(library: Library, signatures: T): Bound<T> {
  const bound: Record<string, ForeignFunction> = {};
  for (const [name, [result, ...parameters]] of Object.entries(signatures)) {
    const found = library.find(name, result, parameters);
    if (!found)
      throw new LorikeetError(
        "cuda-library",
        `Expected ${library.path} to have ${name}; this version does not`,
        {
          hint: "Install a newer version of the library. `lorikeet doctor` lists what was found.",
        },
      );
    bound[name] = found;
  }
  return bound as Bound<T>;
}

/** `functions` with their status checked: a call that returns other than 0 throws what `describe` says of it. */
export function checked<T extends Signatures>(
  functions: Bound<T>,
  describe: (name: string, status: number) => Error,
): Bound<T> {
  return Object.fromEntries(
    Object.entries(functions).map(([name, f]) => [
      name,
      (...args: Argument[]) => {
        const status = f(...args);
        if (status !== 0) throw describe(name, status);
        return 0;
      },
    ]),
  ) as unknown as Bound<T>;
}

/** Memory outside the JavaScript heap, at a fixed address, for what a library keeps after a call returns. */
export interface NativeMemory {
  readonly address: number;
  readonly buffer: ArrayBuffer;
}

/** Allocates `bytes` of zeroed native memory; it lives as long as the process. */
export function allocateNative(bytes: number): NativeMemory {
  const pointer: unknown = koffi.alloc("uint8_t", bytes);
  const buffer = koffi.view(pointer, bytes);
  new Uint8Array(buffer).fill(0);
  return { address: Number(koffi.address(pointer)), buffer };
}

/** A view of `bytes` of memory at `address`, which something else keeps alive. */
export function viewNative(address: number, bytes: number): ArrayBuffer {
  return koffi.view(BigInt(address), bytes);
}

/** The zero-terminated string at `address`. */
export function readString(address: number | bigint): string {
  return koffi.decode.string(BigInt(address));
}
