// The table of a gallery: filters, sorting and pages over the columns in rows.js (window.GALLERY).
"use strict";
(function () {
  var data = window.GALLERY;
  var columns = data.columns; // name -> {unit, description, values}
  var shown = data.shown.slice();
  var texts = ["name", "quality"].concat(data.scenes.length ? ["scene"] : []);
  var PAGE = 50;
  var order = []; // indices of the rows that pass the filters, sorted
  var sorted = { column: null, descending: false };
  var first = 0;

  function element(id) { return document.getElementById(id); }

  function cell(kind, text) {
    var made = document.createElement(kind);
    made.textContent = text;
    return made;
  }

  function number(value) {
    if (value === null) { return ""; }
    if (Number.isInteger(value)) { return String(value); }
    var size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e7)) { return value.toExponential(2); }
    return value.toPrecision(5).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  }

  function withError(name, i) {
    var value = columns[name].values[i];
    if (value === null) { return ""; }
    var error = columns[name + "_std"] ? columns[name + "_std"].values[i] : null;
    if (error === null || error <= 0) { return number(value); }
    var digits = Math.max(0, Math.min(6, 1 - Math.floor(Math.log10(error))));
    return value.toFixed(digits) + " ± " + error.toFixed(digits);
  }

  // "snr > 30, sersic_index < 2" as a list of tests, or null where it is not understood.
  function conditions(text) {
    var tests = [];
    var parts = text.split(/,|\band\b/);
    for (var k = 0; k < parts.length; k += 1) {
      var part = parts[k].trim();
      if (part === "") { continue; }
      var match = /^(\w+)\s*(<=|>=|!=|==|=|<|>)\s*(-?[\d.]+(?:e[+-]?\d+)?)$/i.exec(part);
      if (!match || !columns[match[1]] || Number.isNaN(Number(match[3]))) { return null; }
      tests.push({ values: columns[match[1]].values, operator: match[2], limit: Number(match[3]) });
    }
    return tests;
  }

  function holds(test, i) {
    var value = test.values[i];
    if (value === null) { return false; }
    switch (test.operator) {
      case "<": return value < test.limit;
      case "<=": return value <= test.limit;
      case ">": return value > test.limit;
      case ">=": return value >= test.limit;
      case "!=": return value !== test.limit;
      default: return value === test.limit;
    }
  }

  function compare(a, b) {
    if (a === b) { return 0; }
    if (a === null) { return 1; } // unknown last, whichever way
    if (b === null) { return -1; }
    return (a < b ? -1 : 1) * (sorted.descending ? -1 : 1);
  }

  function filter() {
    var qualities = {};
    document.querySelectorAll("#qualities input").forEach(function (box) {
      qualities[box.value] = box.checked;
    });
    var flag = element("flag").value;
    var scene = element("scene").value;
    var name = element("name").value.toLowerCase();
    var tests = conditions(element("where").value);
    element("where").classList.toggle("wrong", tests === null);
    if (tests === null) { return; }
    order = [];
    for (var i = 0; i < data.names.length; i += 1) {
      if (qualities[data.quality[i]] === false) { continue; }
      if (flag && data.flags[i].split(",").indexOf(flag) < 0) { continue; }
      if (scene && data.scene[i] !== scene) { continue; }
      if (name && data.names[i].toLowerCase().indexOf(name) < 0) { continue; }
      if (tests.every(function (test) { return holds(test, i); })) { order.push(i); }
    }
    sort();
  }

  function values(column) {
    if (column === "name") { return data.names; }
    if (column === "quality") { return data.quality; }
    if (column === "scene") { return data.scene; }
    if (column === "flags") { return data.flags; }
    return columns[column].values;
  }

  function sort() {
    if (sorted.column !== null) {
      var by = values(sorted.column);
      order.sort(function (i, j) { return compare(by[i], by[j]) || i - j; });
    }
    first = 0;
    show();
  }

  function heading(column, text, unit, title) {
    var made = cell("th", text);
    if (sorted.column === column) { made.textContent += sorted.descending ? " ▼" : " ▲"; }
    if (unit) {
      var small = cell("span", unit);
      small.className = "unit";
      made.appendChild(small);
    }
    made.title = title || "";
    made.dataset.column = column;
    made.addEventListener("click", function () {
      sorted.descending = sorted.column === column && !sorted.descending;
      sorted.column = column;
      if (!sorted.descending) { order.sort(function (i, j) { return i - j; }); }
      sort();
    });
    return made;
  }

  function show() {
    var head = document.querySelector("#rows thead");
    var body = document.querySelector("#rows tbody");
    var top = document.createElement("tr");
    top.appendChild(cell("th", "image, model, residual")).className = "text";
    texts.forEach(function (column) {
      top.appendChild(heading(column, column)).className = "text";
    });
    shown.forEach(function (column) {
      top.appendChild(heading(column, column, columns[column].unit, columns[column].description));
    });
    top.appendChild(heading("flags", "flags")).className = "text";
    head.replaceChildren(top);
    var lines = document.createDocumentFragment();
    order.slice(first, first + PAGE).forEach(function (i) {
      var line = document.createElement("tr");
      var picture = document.createElement("td");
      var link = document.createElement("a");
      link.href = "galaxies/" + data.pages[i] + ".html";
      if (data.pictures[i]) {
        var image = document.createElement("img");
        image.className = "strip";
        image.loading = "lazy";
        image.src = "thumbnails/" + data.pages[i] + ".png";
        image.alt = data.names[i];
        link.appendChild(image);
      } else {
        link.textContent = "no picture";
      }
      picture.appendChild(link);
      line.appendChild(picture);
      var name = document.createElement("td");
      var second = document.createElement("a");
      second.href = link.href;
      second.textContent = data.names[i];
      name.className = "text";
      name.appendChild(second);
      line.appendChild(name);
      var quality = document.createElement("td");
      var mark = cell("span", data.quality[i]);
      mark.className = "quality " + data.quality[i];
      quality.className = "text";
      quality.appendChild(mark);
      line.appendChild(quality);
      if (data.scenes.length) { line.appendChild(cell("td", data.scene[i])).className = "text"; }
      shown.forEach(function (column) { line.appendChild(cell("td", withError(column, i))); });
      var flags = cell("td", data.flags[i].split(",").join(", "));
      flags.className = "text flags";
      line.appendChild(flags);
      lines.appendChild(line);
    });
    body.replaceChildren(lines);
    element("count").textContent = order.length + " of " + data.names.length + " galaxies";
    var last = Math.min(first + PAGE, order.length);
    element("page").textContent = order.length ? first + 1 + " to " + last : "none";
    element("previous").disabled = first === 0;
    element("next").disabled = last >= order.length;
  }

  function start() {
    ["good", "caution", "bad"].forEach(function (quality) {
      var label = document.createElement("label");
      var box = document.createElement("input");
      box.type = "checkbox";
      box.value = quality;
      box.checked = true;
      box.addEventListener("change", filter);
      label.appendChild(box);
      var number = data.quality.filter(function (q) { return q === quality; }).length;
      label.appendChild(document.createTextNode(" " + quality + " (" + number + ") "));
      element("qualities").appendChild(label);
    });
    data.flagNames.forEach(function (name) { element("flag").appendChild(cell("option", name)); });
    Object.keys(columns).forEach(function (name) {
      element("column").appendChild(cell("option", name));
    });
    data.scenes.forEach(function (name) { element("scene").appendChild(cell("option", name)); });
    element("scenes").hidden = !data.scenes.length;
    element("scene").addEventListener("change", filter);
    element("flag").addEventListener("change", filter);
    element("where").addEventListener("input", filter);
    element("name").addEventListener("input", filter);
    element("column").addEventListener("change", function () {
      var name = element("column").value;
      if (name && shown.indexOf(name) < 0) { shown.push(name); show(); }
      element("column").value = "";
    });
    element("previous").addEventListener("click", function () { first -= PAGE; show(); });
    element("next").addEventListener("click", function () { first += PAGE; show(); });
    filter();
  }

  start();
}());
