import type { Example } from "./examples.ts";
import { formatPlace, type Place } from "./read/source-row.ts";

/** Samples by number, wherever they are kept. What plans need of each is in memory. */
export interface ExampleStore {
  readonly count: number;
  /** Tokens of each sample. */
  readonly lengths: Uint32Array;
  /** Targets of each sample. */
  readonly supervised: Uint32Array;
  /** Key of the row that each sample came from; equal for equal rows. */
  readonly keys: Uint32Array;
  /** Tells two sequences of samples apart. */
  readonly fingerprint: string;
  /** The row that a sample came from: file and line, or the number of the sample, from 1. */
  nameOf(index: number): string;
  read(index: number): Promise<Example>;
  /** Releases files; the store can't be read afterwards. */
  dispose(): Promise<void>;
}

/** Takes samples in order and then gives them by number. */
export interface ExampleWriter {
  append(example: Example, key: number, place?: Place): Promise<void>;
  finish(): Promise<ExampleStore>;
}

/** Where a writer keeps the words of its samples: each token id with its target bit below it. */
export interface WordStore {
  append(words: Int32Array): Promise<void>;
  /** `length` words from word `start`. */
  read(start: number, length: number): Promise<Int32Array>;
  dispose(): Promise<void>;
}

/** A writer that keeps its samples in `words`: in memory, unless told otherwise. */
export function exampleWriter(words: WordStore = memoryWords()): ExampleWriter {
  const lengths: number[] = [];
  const supervised: number[] = [];
  const keys: number[] = [];
  const starts: number[] = [];
  const lines: number[] = [];
  const files: { readonly first: number; readonly file: string | undefined }[] = [];
  let size = 0;
  let hash: readonly [number, number] = [0x811c9dc5, 0x2f0b4c47];
  return {
    async append({ inputIds, labelMask }, key, place) {
      const packed = inputIds.map((id, i) => (id << 1) | labelMask[i]!);
      starts.push(size);
      lengths.push(packed.length);
      supervised.push(labelMask.reduce((sum, bit) => sum + bit, 0));
      keys.push(key);
      if (files.length === 0 || files.at(-1)!.file !== place?.file)
        files.push({ first: lines.length, file: place?.file });
      lines.push(place?.line ?? 0);
      size += packed.length;
      hash = mixWords(hash, packed);
      await words.append(packed);
    },
    async finish() {
      return {
        count: lengths.length,
        lengths: Uint32Array.from(lengths),
        supervised: Uint32Array.from(supervised),
        keys: Uint32Array.from(keys),
        fingerprint: hash.map((half) => half.toString(16).padStart(8, "0")).join(""),
        nameOf(index) {
          const file = files.findLast(({ first }) => first <= index)?.file;
          return file === undefined
            ? `sample ${index + 1}`
            : formatPlace({ file, line: lines[index]! });
        },
        read: async (index) => unpack(await words.read(starts[index]!, lengths[index]!)),
        dispose: () => words.dispose(),
      };
    },
  };
}

function unpack(words: Int32Array): Example {
  return {
    inputIds: words.map((word) => word >> 1),
    labelMask: Uint8Array.from(words, (word) => word & 1),
  };
}

/** FNV-1a over the length and the words, with two starts. */
function mixWords([a, b]: readonly [number, number], words: Int32Array): [number, number] {
  let [x, y] = [Math.imul(a ^ words.length, 0x01000193), Math.imul(b ^ words.length, 0x01000193)];
  for (const word of words) {
    x = Math.imul(x ^ word, 0x01000193);
    y = Math.imul(y ^ (word + (x >>> 16)), 0x01000193);
  }
  return [x >>> 0, y >>> 0];
}

/** Words in blocks in memory. */
export function memoryWords(): WordStore {
  const BLOCK = 2 ** 20;
  let blocks: Int32Array[] = [];
  let size = 0;
  return {
    async append(words) {
      for (let done = 0; done < words.length;) {
        const at = size % BLOCK;
        if (at === 0) blocks.push(new Int32Array(BLOCK));
        const part = words.subarray(done, done + BLOCK - at);
        blocks.at(-1)!.set(part, at);
        done += part.length;
        size += part.length;
      }
    },
    async read(start, length) {
      const out = new Int32Array(length);
      for (let done = 0; done < length;) {
        const at = (start + done) % BLOCK;
        const block = blocks[Math.floor((start + done) / BLOCK)]!;
        const part = block.subarray(at, at + length - done);
        out.set(part, done);
        done += part.length;
      }
      return out;
    },
    async dispose() {
      blocks = [];
    },
  };
}
