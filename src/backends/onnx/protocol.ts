/** @file Messages between the engine and the thread that hosts ONNX Runtime. */
import { LorikeetError } from "../../errors.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { AdamWStep } from "../backend.ts";
import type { SessionOptions } from "./session.ts";

/** Place in the gate, two numbers that both threads see, of whether the host answers a request. */
export const BUSY = 0;
/** Place in the gate of whether the process is about to end. */
export const CLOSING = 1;

/** Shapes by name. */
export type Shapes = Readonly<Record<string, Shape>>;

/** A program as the host needs it. */
export interface ProgramSpec {
  /** Bytes of the ONNX file. */
  readonly model: Uint8Array;
  /** Trainable parameters that the program reads. */
  readonly parameters: Shapes;
  /** ONNX names of the results by output name. */
  readonly outputs: Readonly<Record<string, string>>;
  /** ONNX names of the results by the parameter whose gradient they are. */
  readonly gradients: Readonly<Record<string, string>>;
  /** ONNX names of new rows by the cache that they go into. */
  readonly caches: Readonly<Record<string, string>>;
  /** Shapes of the caches that the program reads. */
  readonly cacheShapes: Shapes;
}

/** What the engine asks of the host. */
export type Request =
  | {
      readonly type: "compile";
      readonly program: number;
      readonly spec: ProgramSpec;
      readonly options: SessionOptions;
    }
  | {
      readonly type: "run";
      readonly program: number;
      readonly feeds: Readonly<Record<string, Tensor>>;
    }
  | { readonly type: "release"; readonly program: number }
  | { readonly type: "get"; readonly name: string }
  | { readonly type: "set"; readonly values: Readonly<Record<string, Tensor>> }
  | { readonly type: "copy"; readonly names: readonly string[] }
  | { readonly type: "takeGradients" }
  | { readonly type: "addGradients"; readonly values: Readonly<Record<string, Tensor>> }
  | { readonly type: "apply"; readonly update: AdamWStep }
  | { readonly type: "clear" };

/** What the host answers. */
export type Response =
  | { readonly kind: "none" }
  | { readonly kind: "tensor"; readonly value: Tensor }
  | { readonly kind: "tensors"; readonly values: Record<string, Tensor> }
  | { readonly kind: "norm"; readonly gradNorm: number };

/** An error in a form that crosses threads. */
export interface PlainError {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly stack?: string;
}

/** A numbered request and its answer. */
export interface RequestMessage {
  readonly id: number;
  readonly request: Request;
}
export type ResponseMessage =
  | { readonly id: number; readonly response: Response }
  | { readonly id: number; readonly error: PlainError };

/** `error` for another thread; what is no LorikeetError gets the code `engine-internal`. */
export function toPlainError(error: unknown): PlainError {
  if (!(error instanceof Error)) return { code: "engine-internal", message: String(error) };
  const isOurs = error instanceof LorikeetError;
  return {
    code: isOurs ? error.code : "engine-internal",
    message: error.message,
    ...(isOurs && error.hint !== undefined && { hint: error.hint }),
    ...(error.stack !== undefined && { stack: error.stack }),
  };
}

/** The error that `toPlainError` was given, with the host's stack as its cause. */
export function fromPlainError({ code, message, hint, stack }: PlainError): LorikeetError {
  return new LorikeetError(code, message, {
    ...(hint !== undefined && { hint }),
    ...(stack && { cause: stack }),
  });
}

/**
 * `response` as the kind that was asked for.
 * @throws LorikeetError `engine-internal` when it is another
 */
export function expectKind<K extends Response["kind"]>(
  response: Response,
  kind: K,
): Response & { kind: K } {
  if (response.kind === kind) return response as Response & { kind: K };
  throw new LorikeetError(
    "engine-internal",
    `Expected an answer of kind ${kind}, got ${response.kind}`,
  );
}
