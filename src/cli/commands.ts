import type { Command } from "commander";
import type { CliContext } from "./context.ts";

/** What a command's file exports: options, examples and action. */
export interface CommandModule {
  readonly register: (command: Command, context: CliContext) => void;
}

/** A command as the overview lists it; its file is read only when it is called. */
export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<CommandModule>;
}

/** All commands, in the order of `lorikeet --help`. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "train",
    summary: "fine-tune a model with LoRA on your data",
    load: () => import("./train.ts"),
  },
  {
    name: "generate",
    summary: "continue a text or answer a question, with or without an adapter",
    load: () => import("./generate.ts"),
  },
  {
    name: "chat",
    summary: "talk with a model in the terminal",
    load: () => import("./chat.ts"),
  },
  {
    name: "imagine",
    summary: "make images from a prompt, with or without adapters",
    load: () => import("./imagine.ts"),
  },
  {
    name: "merge",
    summary: "write base and adapter as one model: safetensors, or GGUF for llama.cpp and Ollama",
    load: () => import("./merge.ts"),
  },
  {
    name: "unmerge",
    summary: "take an adapter out of a merged model, and say how exact the result is",
    load: () => import("./unmerge.ts"),
  },
  {
    name: "convert",
    summary: "write an adapter for llama.cpp, mlx-lm, PEFT, diffusers or kohya, or a model as GGUF",
    load: () => import("./convert.ts"),
  },
  {
    name: "data",
    summary: "preview training data as the model will read it",
    load: () => import("./data.ts"),
  },
  {
    name: "inspect",
    summary: "show what is in a model or an adapter, and whether they fit",
    load: () => import("./inspect.ts"),
  },
  {
    name: "demo",
    summary: "see LoRA work: a minute of training, answers before and after",
    load: () => import("./demo.ts"),
  },
  {
    name: "doctor",
    summary: "check this machine: what was found, and what to do about what is missing",
    load: () => import("./doctor.ts"),
  },
];
