// As with the tokenizers package, the declarations of @huggingface/jinja do not resolve under "nodenext" (0.5.11).
import * as library from "@huggingface/jinja";

/** A parsed template. */
export interface Program {
  readonly type: "Program";
}

/** The variables that a template sees. */
interface Environment {
  set(name: string, value: unknown): void;
}

/** The parts of the library in use. */
export const jinja: {
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown[];
  parse(tokens: unknown[]): Program;
  readonly Environment: new () => Environment;
  readonly Interpreter: new (environment: Environment) => {
    run(program: Program): { value: string };
  };
} = library;
