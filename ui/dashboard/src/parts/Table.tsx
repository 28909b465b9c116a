import type { ReactNode } from 'react';

export interface TableProps {
  label: string;
  heads: readonly string[];
  /** Undefined while they are loaded. */
  rows: readonly { key: string; cells: readonly ReactNode[] }[] | undefined;
  empty: ReactNode;
  /** Heads of the columns with numbers, which are aligned by their last digit. */
  numbers?: readonly string[];
}

/** Table; on a narrow page each row is a block, and each cell says what it is. */
export function Table({ label, heads, rows, empty, numbers = [] }: TableProps) {
  const isNumber = (index: number) => numbers.includes(heads[index] ?? '') || undefined;
  return (
    <div className="d-panel d-sheet">
      <table className="ax-table d-table" aria-label={label} aria-busy={rows === undefined}>
        <thead>
          <tr>
            {heads.map((head, index) => (
              <th key={head} scope="col" data-number={isNumber(index)}>
                {head || <span className="d-hidden">Acts</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows === undefined &&
            [1, 2, 3].map((row) => (
              <tr key={row}>
                <td colSpan={heads.length}>
                  <div className="ax-placeholder d-table__placeholder" />
                </td>
              </tr>
            ))}
          {rows?.length === 0 && (
            <tr>
              <td colSpan={heads.length} className="ax-empty">
                {empty}
              </td>
            </tr>
          )}
          {rows?.map(({ key, cells }) => (
            <tr key={key}>
              {cells.map((cell, index) =>
                index === 0 ? (
                  <th key={heads[index]} scope="row">
                    {cell}
                  </th>
                ) : (
                  <td key={heads[index]} data-head={heads[index]} data-number={isNumber(index)}>
                    {cell}
                  </td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
