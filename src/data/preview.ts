import type { Example } from "./examples.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A stretch of a sample's text whose tokens are all trained, or all not. */
export interface PreviewPiece {
  readonly text: string;
  readonly isTrained: boolean;
  readonly tokens: number;
}

/**
 * A sample's text in pieces by what is trained. A character that is spread over tokens of both kinds belongs to the
 * piece in which it ends.
 */
export function previewPieces(example: Example, tokenizer: Tokenizer): PreviewPiece[] {
  const { inputIds, labelMask } = example;
  const decoder = tokenizer.stream();
  const pieces: { text: string; isTrained: boolean; tokens: number }[] = [];
  for (const [i, id] of inputIds.entries()) {
    const isTrained = labelMask[i] === 1;
    const last = pieces.at(-1);
    const piece = last?.isTrained === isTrained ? last : { text: "", isTrained, tokens: 0 };
    if (piece !== last) pieces.push(piece);
    piece.text += decoder.push(id);
    piece.tokens++;
  }
  const rest = decoder.flush();
  if (pieces.length > 0) pieces.at(-1)!.text += rest;
  return pieces;
}
