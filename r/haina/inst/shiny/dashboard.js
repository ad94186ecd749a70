// Clicks become inputs of the server. One listener on the page: tables are replaced whenever they change.
(function () {
  'use strict';
  let opening = false;
  const tell = function (name, value) { Shiny.setInputValue(name, value, { priority: 'event' }); };

  document.addEventListener('click', function (event) {
    const target = event.target;
    if (target.closest('button.close')) { tell('close', 1); return; }
    if (target.closest('button.all')) { tell('all', 1); return; }
    if (target.closest('button.again')) { tell('again', Date.now()); return; }
    if (String(window.getSelection())) { return; } // A reader who marks text does not want to leave it.
    const place = target.closest('[data-round], [data-node]');
    if (!place) { return; }
    opening = true;
    const before = document.getElementById('opened');
    if (before) { before.removeAttribute('id'); }
    if (place.dataset.round) { tell('round', Number(place.dataset.round)); } else { tell('node', place.dataset.node); }
  });

  document.addEventListener('keydown', function (event) {
    if (event.key === 'Escape' && document.getElementById('opened')) { tell('close', 1); }
  });

  // What a click opened is brought into view, once; what a later look changes in it is not.
  new MutationObserver(function () {
    const opened = document.getElementById('opened');
    if (!opening || !opened) { return; }
    opening = false;
    opened.focus({ preventScroll: true });
    opened.scrollIntoView({ block: 'start' });
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
