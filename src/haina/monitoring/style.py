"""Style of the page: one style sheet, light and dark, screen and paper, desk and phone."""

STYLE = """
:root { --paper: #ffffff; --ink: #1f2328; --quiet: #59636e; --line: #d1d9e0; --band: #f6f8fa; --link: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161b; --ink: #e6edf3; --quiet: #9aa4af; --line: #30363d; --band: #1a2027; --link: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 2px solid var(--link); }
p { margin: .3rem 0; max-width: 75ch; overflow-wrap: anywhere; }
p:has(+ ul) { margin-top: .6rem; font-weight: 600; }
ul { margin: .2rem 0 .6rem; padding-left: 1.2rem; }
li { margin: .15rem 0; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 0; }
dt { color: var(--quiet); font-size: .85rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
dl.words { display: block; columns: 20rem; }
dl.words div { break-inside: avoid; margin-bottom: .5rem; }
dl.words dt { color: var(--ink); font-weight: 600; font-size: 1rem; }
dl.words dd { font-weight: 400; color: var(--quiet); }
figure { margin: 0 0 1rem; padding: .5rem; background: #ffffff; border: 1px solid var(--line); border-radius: 8px; }
img { display: block; width: 100%; height: auto; }
.scroll { overflow: auto; max-height: 34rem; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .5rem .75rem; color: var(--quiet); }
th, td { padding: .3rem .75rem; text-align: right; vertical-align: top; white-space: nowrap; }
th { position: sticky; top: 0; background: var(--band); border-bottom: 1px solid var(--line); }
.words { text-align: left; }
td.words:last-child { white-space: normal; min-width: 16rem; }
tbody tr:nth-child(even) { background: var(--band); }
@media print {
  :root { --paper: #ffffff; --ink: #000000; --quiet: #444444; --line: #bbbbbb; --band: #ffffff; }
  body { font-size: 10pt; }
  .scroll { overflow: visible; max-height: none; border: 0; }
  table { font-size: 7.5pt; }
  th { position: static; }
  figure, tr { break-inside: avoid; }
}
"""
