/**
 * Characters that are not seen, or change the order in which others are seen: controls, directions of writing, formats,
 * separators and halves of pairs. The same as in the command line's output.
 */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Likewise, and everything else that fonts show as nothing, such as fillers, variation selectors and private use. */
const HIDDEN_STRICTLY = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** Soft hyphen, and the joiners that emoji and many scripts are written with. */
const HARMLESS = /[\u00ad\u200c\u200d]/;

/**
 * Return a text in which nothing is hidden, and nothing reorders what is around it: such characters are escapes like
 * `\u202e`. Line breaks and tabs stay.
 *
 * Strictly, for what a person decides on, joiners are escapes everywhere; else they stay beside characters that may
 * need them.
 */
export function visible(text: string, strictly = false): string {
  return text.replace(strictly ? HIDDEN_STRICTLY : HIDDEN, (char: string, at: number) => {
    if (char === '\n' || char === '\t') return char;
    if (char === '\r' && text[at + 1] === '\n') return '';
    const before = text.charCodeAt(at - 1);
    if (!strictly && HARMLESS.test(char) && (char === '\u00ad' || before > 0x7f)) return char;
    return Array.from({ length: char.length }, (_, unit) => escaped(char.charCodeAt(unit))).join('');
  });
}

function escaped(unit: number): string {
  return `\\u${unit.toString(16).padStart(4, '0')}`;
}
