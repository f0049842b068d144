'use strict';
(function () {
  const views = Array.from(document.querySelectorAll('section[data-view]'));
  const buttons = Array.from(document.querySelectorAll('button[data-show]'));

  function show(name) {
    views.forEach(function (view) { view.hidden = view.dataset.view !== name; });
    buttons.forEach(function (button) { button.setAttribute('aria-pressed', String(button.dataset.show === name)); });
    document.querySelectorAll('.links a').forEach(function (link) {
      link.hidden = document.getElementById(name + '-' + link.dataset.part) === null;
      link.href = '#' + name + '-' + link.dataset.part;
    });
  }

  // A link to a part of a view that is not shown, such as a frame of the other run, shows that view first.
  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const view = target && target.closest('section[data-view]');
    if (view) {
      show(view.dataset.view);
      target.scrollIntoView();
    }
  }

  buttons.forEach(function (button) {
    button.addEventListener('click', function () { show(button.dataset.show); });
  });
  document.querySelectorAll('.picture img').forEach(function (picture) {
    picture.addEventListener('click', function () { picture.closest('figure').classList.toggle('large'); });
  });
  window.addEventListener('hashchange', follow);
  if (views.length) { show(views[0].dataset.view); }
  follow();
})();
