// Draws the Mermaid diagrams of pages, for the light and the dark theme: node diagrams.mjs OUTPUT_FOLDER PACKAGES < JSON {name: source}
// The site shows these pictures: the theme would load Mermaid from another server. GitHub draws the diagrams itself.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const THEMES = { light: "neutral", dark: "dark" };
const FONT = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif';

const [folder, packages] = process.argv.slice(2);
const { chromium } = createRequire(`${packages}/`)("playwright-core");
const sources = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
try {
  const page = await browser.newPage();
  await page.addScriptTag({ path: `${packages}/node_modules/mermaid/dist/mermaid.min.js` });
  for (const [name, source] of Object.entries(sources)) {
    for (const [theme, mermaidTheme] of Object.entries(THEMES)) {
      const svg = await page.evaluate(
        async ({ source, theme, font, id }) => {
          window.mermaid.initialize({
            startOnLoad: false,
            theme,
            fontFamily: font,
            htmlLabels: false,
            flowchart: { htmlLabels: false },
            deterministicIds: true,
            securityLevel: "strict",
          });
          return (await window.mermaid.render(id, source)).svg;
        },
        { source, theme: mermaidTheme, font: FONT, id: `diagram-${name}-${theme}` },
      );
      writeFileSync(`${folder}/${name}.${theme}.svg`, `${svg}\n`);
    }
  }
} finally {
  await browser.close();
}
