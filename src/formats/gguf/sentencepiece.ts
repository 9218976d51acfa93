/**
 * Merges, best first, that make byte-pair encoding choose pieces as SentencePiece does by score: every way to join
 * two pieces into a third, by the third's score, then by the lengths and ids of the two.
 * https://github.com/google/sentencepiece
 */
export function mergesOfScores(
  pieces: readonly string[],
  scores: readonly number[],
  isText: (id: number) => boolean,
): [string, string][] {
  const ids = new Map<string, number>();
  for (const [id, piece] of pieces.entries()) if (isText(id)) ids.set(piece, id);
  const merges: Merge[] = [];
  for (const [piece, id] of ids) {
    const ways: Merge[] = [];
    for (const cut of cuts(piece)) {
      const [left, right] = [piece.slice(0, cut), piece.slice(cut)];
      const [leftId, rightId] = [ids.get(left), ids.get(right)];
      if (leftId === undefined || rightId === undefined) continue;
      ways.push({ left, right, score: scores[id]!, leftId, rightId });
    }
    merges.push(...ways.sort((a, b) => a.leftId - b.leftId || a.rightId - b.rightId));
  }
  merges.sort(
    (a, b) =>
      b.score - a.score || length(b.left) - length(a.left) || length(b.right) - length(a.right),
  );
  return merges.map(({ left, right }) => [left, right]);
}

interface Merge {
  readonly left: string;
  readonly right: string;
  readonly score: number;
  readonly leftId: number;
  readonly rightId: number;
}

function length(text: string): number {
  return Array.from(text).length;
}

/** Places between the characters of `piece`, in UTF-16 units. */
function cuts(piece: string): number[] {
  const places: number[] = [];
  let place = 0;
  for (const character of piece) {
    if (place > 0) places.push(place);
    place += character.length;
  }
  return places;
}
