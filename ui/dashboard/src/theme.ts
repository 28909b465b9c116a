import { useState } from 'react';

/** Theme that the reader has chosen; `system` follows the system's. */
export type Theme = 'system' | 'light' | 'dark';

const THEMES: readonly Theme[] = ['system', 'light', 'dark'];
const KEY = 'agentexec.theme';

/** Use the theme that was chosen before. Called before the first render, so that the page never flashes. */
export function applyTheme(theme: Theme = stored()): void {
  const { dataset } = document.documentElement;
  if (theme === 'system') delete dataset.theme;
  else dataset.theme = theme;
}

/** Return the theme, and a function that goes on to the next one. */
export function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState(stored);
  const next = () => {
    const chosen = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] as Theme;
    applyTheme(chosen);
    setTheme(chosen);
    try {
      localStorage.setItem(KEY, chosen);
    } catch {
      // A browser without storage follows the choice until the page is closed.
    }
  };
  return [theme, next];
}

function stored(): Theme {
  try {
    const theme = localStorage.getItem(KEY) as Theme;
    return THEMES.includes(theme) ? theme : 'system';
  } catch {
    return 'system';
  }
}
