import { parquetMetadataAsync, parquetReadObjects, toJson } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { LorikeetError } from "../../errors.ts";
import type { ByteSource } from "../../formats/byte-source.ts";
import { reasonOf, type SourceRow, syntaxFault } from "./source-row.ts";

/** Rows of a Parquet file, one row group in memory at a time. https://parquet.apache.org/docs/file-format/ */
export async function* readParquet(source: ByteSource): AsyncGenerator<SourceRow> {
  const file = {
    byteLength: source.size,
    slice: async (start: number, end: number = source.size): Promise<ArrayBuffer> => {
      const from = start < 0 ? source.size + start : start;
      const bytes = await source.read(from, end - from);
      return bytes.slice().buffer;
    },
  };
  let row = 0;
  try {
    const metadata = await parquetMetadataAsync(file);
    for (const group of metadata.row_groups) {
      const rowEnd = row + Number(group.num_rows);
      const rows = await parquetReadObjects({ file, metadata, compressors, rowStart: row, rowEnd });
      for (const value of rows)
        yield { place: { file: source.name, line: ++row }, value: toJson(value) };
    }
  } catch (cause) {
    if (cause instanceof LorikeetError) throw cause;
    const place = { file: source.name, line: row };
    yield syntaxFault(place, `Expected a whole Parquet file, got: ${reasonOf(cause)}`, cause);
  }
}
