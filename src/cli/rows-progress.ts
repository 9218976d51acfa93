/** Shows how many rows of data are read. */
export interface RowsProgress {
  readonly read: (rows: number) => void;
  /** Takes the line away. */
  readonly end: () => void;
}

/** Small data is read before anybody wonders. */
const SILENT_ROWS = 2048;
/** Rows from line to line where there is no terminal. */
const ROWS_A_LINE = 10_240;

/** A line that moves on a terminal, elsewhere one every so many rows. */
export function showRows(stream: NodeJS.WritableStream & { isTTY?: boolean }): RowsProgress {
  let isShown = false;
  return {
    read(rows) {
      if (rows < SILENT_ROWS) return;
      const line = `reading data: ${rows.toLocaleString("en")} rows`;
      if (stream.isTTY) stream.write(`\r\u001b[K${line}`);
      else if (rows % ROWS_A_LINE === 0) stream.write(`${line}\n`);
      isShown = stream.isTTY === true;
    },
    end() {
      if (isShown) stream.write("\r\u001b[K");
      isShown = false;
    },
  };
}
