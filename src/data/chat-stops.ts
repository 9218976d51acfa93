import { turnEnding } from "./chat-spans.ts";
import type { ChatTemplate } from "./chat-template.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What ends an answer: token ids, and texts where the vocabulary has no token of that spelling. */
export interface ChatStops {
  readonly ids: readonly number[];
  readonly strings: readonly string[];
}

/** Where to stop generating an answer in a chat: the model's own stop ids, and what ends a turn in `template`. */
export function chatStops(template: ChatTemplate, tokenizer: Tokenizer): ChatStops {
  const { stopIds } = tokenizer.specials;
  const ending = turnEnding(template).trimStart();
  const token = tokenizer.addedTokens.filter((added) => ending.startsWith(added)).sort(byLength)[0];
  const id = token === undefined ? undefined : tokenizer.tokenId(token);
  if (id !== undefined) return { ids: [...new Set([...stopIds, id])], strings: [] };
  return { ids: stopIds, strings: ending === "" ? [] : [ending] };
}

function byLength(a: string, b: string): number {
  return b.length - a.length;
}
