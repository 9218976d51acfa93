import { tmpdir } from "node:os";
import { memoryWords, type WordStore } from "../data/example-store.ts";
import { temporaryFile } from "./temporary-file.ts";

/** Words kept in memory before a temporary file takes over: 256 MiB. */
const IN_MEMORY = 2 ** 26;
/** Words written at once. */
const BUFFER = 2 ** 18;

/**
 * Words in memory up to a limit, the rest in a temporary file, so that a data set may be larger than memory.
 * @throws LorikeetError `disk-full` and others, when the temporary folder can't be written
 */
export function spillingWords(limit: number = IN_MEMORY, folder: string = tmpdir()): WordStore {
  const memory = memoryWords();
  let size = 0;
  let file: WordStore | undefined;
  return {
    async append(words) {
      if (!file && size + words.length > limit) file = await fileWords(folder, size);
      else if (!file) size += words.length;
      await (file ?? memory).append(words);
    },
    read: (start, length) => (start < size ? memory : file!).read(start, length),
    async dispose() {
      await memory.dispose();
      await file?.dispose();
    },
  };
}

/** Words from number `first` on in a file of their own. */
async function fileWords(folder: string, first: number): Promise<WordStore> {
  const file = await temporaryFile("the temporary file of the data set", folder);
  const buffer = new Int32Array(BUFFER);
  let buffered = 0;
  const flush = async (): Promise<void> => {
    if (buffered === 0) return;
    await file.append(new Uint8Array(buffer.buffer, 0, 4 * buffered));
    buffered = 0;
  };
  return {
    async append(words) {
      for (let done = 0; done < words.length;) {
        const part = words.subarray(done, done + BUFFER - buffered);
        buffer.set(part, buffered);
        done += part.length;
        buffered += part.length;
        if (buffered === BUFFER) await flush();
      }
    },
    async read(start, length) {
      await flush();
      const bytes = await file.read((start - first) * 4, 4 * length);
      return new Int32Array(bytes.buffer, 0, length);
    },
    dispose: () => file.dispose(),
  };
}
