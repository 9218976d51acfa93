import type { Program } from "./backend.ts";

/** Programs that are compiled once and run again, by a key that stands for the sizes they were made for. */
export interface KeptPrograms {
  /** The program of `key`; `compile` makes it at the first call. */
  readonly get: (key: string, compile: () => Promise<Program>) => Promise<Program>;
  readonly dispose: () => Promise<void>;
}

/** An empty store of programs. */
export function keptPrograms(): KeptPrograms {
  const programs = new Map<string, Promise<Program>>();
  return {
    get(key, compile) {
      const program = programs.get(key) ?? compile();
      programs.set(key, program);
      return program;
    },
    async dispose() {
      for (const program of programs.values()) await (await program).dispose();
      programs.clear();
    },
  };
}
