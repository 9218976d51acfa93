/** @file What every decoder family is built from and gives: inputs, caches, hidden states, logits. */
import type { Node } from "../ir/node.ts";
import { input } from "../ops/leaf.ts";

/** The run that a graph is built for; every size is fixed. */
export interface Sequence {
  readonly batch: number;
  /** Tokens a row, T. */
  readonly length: number;
  /** Slots of the key/value cache before these tokens, P; 0: no cache. */
  readonly cacheLength?: number;
  /** Whether rows hold several samples, or padding that must not be seen: adds the input `segments`. */
  readonly hasSegments?: boolean;
  /** Whether new keys and values are results, to be kept in a cache. */
  readonly keepsCache?: boolean;
}

/** A causal language model as a graph. */
export interface CausalLM {
  /** Final hidden states, (B·T, C). */
  readonly hidden: Node;
  /** Logits (R, V) of hidden rows (R, C). */
  readonly head: (hidden: Node) => Node;
  /** New keys and values by name `present.{layer}.key|value`, each (B, T, Hk, D). */
  readonly present: Readonly<Record<string, Node>>;
}

/** Inputs of a decoder graph. */
export interface DecoderInputs {
  /** (B, T) token ids. */
  readonly ids: Node;
  /** (B, T) positions. */
  readonly positions: Node;
  /** (B, T) and (B, P + T) sample numbers; a key is visible to queries of its own sample. */
  readonly segments: { readonly queries: Node; readonly cached: Node | undefined } | undefined;
}

/** The inputs `input_ids`, `position_ids` and, where used, `segments` and `cache_segments`. */
export function decoderInputs({ batch, length, cacheLength = 0, hasSegments = false }: Sequence): DecoderInputs {
  const ids = input("input_ids", [batch, length], "i64");
  const positions = input("position_ids", [batch, length], "i64");
  if (!hasSegments && cacheLength === 0) return { ids, positions, segments: undefined };
  const queries = input("segments", [batch, length], "i64");
  const cached = cacheLength > 0 ? input("cache_segments", [batch, cacheLength], "i64") : undefined;
  return { ids, positions, segments: { queries, cached } };
}
