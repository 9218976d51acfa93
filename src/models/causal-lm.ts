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
  /** (B, T) sample numbers, from 0: a token sees keys of its own sample. */
  readonly segments: Node | undefined;
  /** (B, P) sample numbers (-1: an unused slot) and positions of cached tokens. */
  readonly cache: { readonly segments: Node; readonly positions: Node } | undefined;
}

/**
 * The inputs `input_ids`, `position_ids` and, where used, `segments` and `cache_segments`. A graph has the input
 * `cache_positions` when a layer's sliding window is shorter than P + T. Cached tokens lie in any order of slots.
 */
export function decoderInputs({
  batch,
  length,
  cacheLength = 0,
  hasSegments = false,
}: Sequence): DecoderInputs {
  const whole = (name: string, size: number): Node => input(name, [batch, size], "i64");
  const hasCache = cacheLength > 0;
  return {
    ids: whole("input_ids", length),
    positions: whole("position_ids", length),
    segments: hasSegments || hasCache ? whole("segments", length) : undefined,
    cache: hasCache
      ? {
          segments: whole("cache_segments", cacheLength),
          positions: whole("cache_positions", cacheLength),
        }
      : undefined,
  };
}
