import type { ReactNode } from 'react';

export interface TableProps {
  label: string;
  heads: readonly string[];
  /** Undefined while they are loaded. */
  rows: readonly { key: string; cells: readonly ReactNode[] }[] | undefined;
  empty: ReactNode;
}

/** Table; on a narrow page each row is a block, and each cell says what it is. */
export function Table({ label, heads, rows, empty }: TableProps) {
  return (
    <table className="ax-table d-table" aria-label={label} aria-busy={rows === undefined}>
      <thead>
        <tr>
          {heads.map((head) => (
            <th key={head} scope="col">
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
                <td key={heads[index]} data-head={heads[index]}>
                  {cell}
                </td>
              ),
            )}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
