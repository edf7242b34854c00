"use strict";
// The page of agebench.app. Text from files and folders is shown with textContent, which runs nothing.

const TEXTS = {
  en: {
    title: "What does the network make of this picture?",
    drop: "Drop a picture here, paste one, or",
    choose: "choose a picture",
    camera: "use the camera",
    shoot: "take the photo",
    stop: "stop",
    invert: "invert the picture (dark on white becomes bright on black)",
    background: "The background of this picture is not that of the training images (bright instead of dark, or dark instead of bright): the answer is probably wrong. Change the box “invert the picture”.",
    private: "The picture stays on this computer: it is not stored and not sent on.",
    examples: "Or try a test image of the run",
    caution: "A network knows only what it was trained on. For a picture unlike the test images the answer means little, and the page cannot tell.",
    given: "the picture",
    truth: (label) => `true label: ${label}`,
    years: (value) => `${value} years`,
    decades: (value) => `${value} (decade)`,
    bins: (value) => `group ${value}`,
    range: (low, high, share) => `calibrated range: ${low} to ${high}. It holds the truth for ${share} of new people.`,
    set: (names, share) => `calibrated set: ${names}. It holds the truth for ${share} of new images.`,
    middle: (low, high) => `the middle 90% of its probability: ${low} to ${high} (not calibrated; see agebench.calibrate)`,
    best: (share) => `probability ${share}`,
    limit: (limit, share) => `probability of an age of at least ${limit}: ${share}`,
    seen: "what the network gets",
    HiResCAM: "orange: what raises this answer (HiResCAM, a form of Grad-CAM)",
    occlusion: "orange: what raises this answer (occlusion)",
    chart: "probability of each label",
    columns: "probability of each age or label; dashed: the estimate",
    others: (count) => `and ${count} more labels`,
    working: "predicting …",
    bytes: (about) => `The file is too large: at most ${Math.floor(about.max_bytes / 2 ** 20)} MiB.`,
    pixels: (about) => `The picture has too many pixels: at most ${Math.floor(about.max_pixels / 1e6)} megapixels. Make it smaller.`,
    format: () => "This file is not a picture in a format that is supported: JPEG, PNG, WebP, GIF, BMP or TIFF.",
    damaged: () => "This picture is damaged or incomplete, so it cannot be read.",
    empty: () => "This file is empty.",
    host: () => "Open this page as http://127.0.0.1 or http://localhost.",
    failed: () => "The prediction failed. The terminal says why.",
    gone: () => "The program does not answer. Is it still running in the terminal?",
    no_camera: () => "The camera cannot be used: there is none, or the browser does not allow it.",
  },
  ja: {
    title: "ネットワークはこの画像をどう見る？",
    drop: "ここに画像をドロップするか、貼り付けてください。または、次のボタンを使います。",
    choose: "画像を選ぶ",
    camera: "カメラを使う",
    shoot: "撮影する",
    stop: "やめる",
    invert: "白黒を反転する（白地に黒 → 黒地に白）",
    background: "背景の明るさが学習データと逆なので、答えはおそらく誤りです。「白黒を反転する」を切り替えてください。",
    private: "画像はこのコンピューターの外に送られず、保存もされません。",
    examples: "またはテスト画像で試す",
    caution: "学習データと異なる種類の画像では、答えはほとんど当てになりません。このページでは、そうした画像かどうかを判別できません。",
    given: "入力した画像",
    truth: (label) => `正解: ${label}`,
    years: (value) => `${value} 歳`,
    decades: (value) => `${value}（年代）`,
    bins: (value) => `区分 ${value}`,
    range: (low, high, share) => `較正済みの範囲: ${low}～${high}。学習データにいない人の ${share} で、正解がこの範囲に入ります。`,
    set: (names, share) => `較正済みの候補: ${names}。新しい画像の ${share} で正解を含みます。`,
    middle: (low, high) => `確率の中央 90%: ${low}～${high}（未較正。agebench.calibrate を参照）`,
    best: (share) => `確率 ${share}`,
    limit: (limit, share) => `${limit} 歳以上である確率: ${share}`,
    seen: "ネットワークへの入力",
    HiResCAM: "橙色: この答えを強める領域（Grad-CAM の一種 HiResCAM）",
    occlusion: "橙色: この答えを強める領域（遮蔽法）",
    chart: "各ラベルの確率",
    columns: "年齢・ラベルごとの確率（破線は推定値）",
    others: (count) => `ほか ${count} ラベル`,
    working: "予測中 …",
    bytes: (about) => `ファイルが大きすぎます（上限 ${Math.floor(about.max_bytes / 2 ** 20)} MiB）。`,
    pixels: (about) => `画素数が多すぎます（上限 ${Math.floor(about.max_pixels / 1e6)} メガピクセル）。画像を小さくしてください。`,
    format: () => "このファイルは対応する形式の画像ではありません（JPEG、PNG、WebP、GIF、BMP、TIFF）。",
    damaged: () => "この画像は壊れているか不完全なため、読み込めません。",
    empty: () => "このファイルは空です。",
    host: () => "このページは http://127.0.0.1 または http://localhost で開いてください。",
    failed: () => "予測に失敗しました。理由は端末に表示されています。",
    gone: () => "プログラムが応答しません。端末で動作しているか確認してください。",
    no_camera: () => "カメラを使えません。カメラがないか、ブラウザーが許可していません。",
  },
};

const find = (id) => document.getElementById(id);
let language = navigator.language.startsWith("ja") ? "ja" : "en";
let about = { runs: [], examples: [], max_bytes: 0, max_pixels: 0 };
let shown = null; // the last result: answers, truth, url of the picture, its name
let problem = null; // the name of the sentence in #message
let stream = null;
let last = null; // the arguments of the last request
let latest = 0; // number of the last request; older answers are not shown

function text(name, ...values) {
  const found = TEXTS[language][name] ?? TEXTS[language].failed;
  return typeof found === "function" ? found(...values) : found;
}

function element(parent, name, content, className) {
  const made = document.createElement(name);
  if (content !== undefined) made.textContent = content;
  if (className) made.className = className;
  parent.append(made);
  return made;
}

function drawn(parent, name, attributes, content) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (content !== undefined) made.textContent = content;
  parent.append(made);
  return made;
}

const percent = (share) => {
  const value = Math.round(1000 * share) / 10;
  return share > 0 && share < 0.001 ? "< 0.1%" : share < 1 && value === 100 ? "> 99.9%" : `${value}%`;
};

// The labels between which the middle share of the probability lies.
function middleOf(answer, share) {
  const quantile = (wanted) => {
    let sum = 0;
    return answer.posterior.findIndex((p) => (sum += Number(p)) >= wanted);
  };
  const last = answer.labels.length - 1;
  const [low, high] = [(1 - share) / 2, (1 + share) / 2].map((wanted) => (quantile(wanted) < 0 ? last : quantile(wanted)));
  return [answer.labels[low], answer.labels[high]];
}

function showAnswer(parent, answer) {
  const values = answer.values;
  const card = element(parent, "article");
  element(card, "h3", answer.run);
  if (answer.other_background) element(card, "p", text("background"), "bad");
  const isYears = answer.unit === "years";
  const best = Math.max(...answer.posterior.map(Number));
  const main = isYears ? text("years", Number(values.point).toFixed(1)) : answer.ordered ? text(answer.unit, values.label) : values.label;
  element(card, "p", main, "estimate");
  const share = answer.coverage === null ? "" : percent(answer.coverage);
  if (values.low !== undefined) element(card, "p", text("range", values.low, values.high, share), "small");
  else if (values.label_set !== undefined) element(card, "p", text("set", values.label_set.split("|").join(", "), share), "small");
  else if (answer.ordered) element(card, "p", text("middle", ...middleOf(answer, 0.9)), "small");
  else element(card, "p", text("best", percent(best)), "small");
  for (const [name, value] of Object.entries(values))
    if (name.startsWith("p(>=")) element(card, "p", text("limit", name.slice(4, -1), percent(Number(value))), "small");
  if (answer.ordered && answer.labels.length > 12) drawColumns(card, answer);
  else drawBars(card, answer);
  const seen = element(card, "div", undefined, "seen");
  showSeen(seen, text("seen"), answer.seen);
  if (answer.heat) showSeen(seen, text(answer.heat.method), answer.seen, answer.heat.image);
}

function showSeen(parent, caption, ...layers) {
  const figure = element(parent, "figure");
  const stack = element(figure, "div", undefined, "stack");
  for (const layer of layers) Object.assign(element(stack, "img"), { src: layer, alt: "" });
  element(figure, "figcaption", caption);
}

// Is a label in the calibrated range or set, or, without one, the answer?
function isIn(answer, index) {
  const values = answer.values;
  if (values.low !== undefined) return answer.numbers[index] >= Number(values.low) && answer.numbers[index] <= Number(values.high);
  if (values.label_set !== undefined) return values.label_set.split("|").includes(answer.labels[index]);
  return answer.labels[index] === values.label;
}

function drawColumns(parent, answer) {
  const [width, height, bottom] = [360, 130, 42];
  const picture = drawn(parent, "svg", { viewBox: `0 0 ${width} ${height + bottom}`, role: "img", "aria-label": text("chart") });
  const numbers = answer.numbers;
  const [first, last] = [numbers[0], numbers[numbers.length - 1]];
  const place = (value) => 16 + ((value - first) / Math.max(1, last - first)) * (width - 32);
  const step = (width - 32) / Math.max(1, numbers.length - 1);
  const most = Math.max(...answer.posterior.map(Number));
  answer.posterior.forEach((p, i) => {
    const tall = (Number(p) / most) * (height - 20);
    const bar = drawn(picture, "rect", {
      class: isIn(answer, i) ? "bar in" : "bar",
      x: place(numbers[i]) - 0.4 * step, width: 0.8 * step, y: height - tall, height: tall,
    });
    drawn(bar, "title", {}, `${answer.labels[i]}: ${percent(Number(p))}`);
  });
  drawn(picture, "line", { class: "axis", x1: 8, x2: width - 8, y1: height, y2: height });
  const every = last - first > 60 ? 20 : last - first > 25 ? 10 : 5;
  for (let tick = Math.ceil(first / every) * every; tick <= last; tick += every)
    drawn(picture, "text", { x: place(tick), y: height + 18, "text-anchor": "middle" }, tick);
  drawn(picture, "line", { class: "axis", x1: 8, x2: 20, y1: 20, y2: 20 });
  drawn(picture, "text", { x: 8, y: 14 }, percent(most));
  drawn(picture, "text", { x: width / 2, y: height + 37, "text-anchor": "middle" }, text("columns"));
  const point = place(Number(answer.values.point));
  drawn(picture, "line", { class: "point", x1: point, x2: point, y1: 16, y2: height });
}

function drawBars(parent, answer) {
  let order = answer.labels.map((_, i) => i);
  if (!answer.ordered) order.sort((a, b) => answer.posterior[b] - answer.posterior[a]);
  const rest = order.length - 12;
  order = order.slice(0, 12);
  const names = order.map((i) => (answer.labels[i].length > 16 ? `${answer.labels[i].slice(0, 15)}…` : answer.labels[i]));
  const widest = Math.max(...names.map((name) => [...name].reduce((sum, letter) => sum + (letter < "\u2e80" ? 7.5 : 13), 0)));
  const [row, width] = [22, 360];
  const [start, end] = [16 + widest, width - 56];
  const tall = order.length * row + (rest > 0 ? row : 0);
  const picture = drawn(parent, "svg", { viewBox: `0 0 ${width} ${tall}`, role: "img", "aria-label": text("chart") });
  order.forEach((i, at) => {
    const p = Number(answer.posterior[i]);
    const label = drawn(picture, "text", { x: start - 8, y: at * row + 15, "text-anchor": "end" }, names[at]);
    drawn(label, "title", {}, answer.labels[i]);
    drawn(picture, "rect", { class: isIn(answer, i) ? "bar in" : "bar", x: start, y: at * row + 3, width: Math.max(1, p * (end - start)), height: row - 6 });
    drawn(picture, "text", { x: start + p * (end - start) + 6, y: at * row + 15 }, percent(p));
  });
  if (rest > 0) drawn(picture, "text", { x: start, y: tall - 6 }, text("others", rest));
}

function render() {
  document.documentElement.lang = language;
  for (const each of document.querySelectorAll("[data-text]")) each.textContent = text(each.dataset.text);
  for (const each of document.querySelectorAll("[data-language]")) each.setAttribute("aria-pressed", each.dataset.language === language);
  find("message").hidden = problem === null;
  find("message").className = "bad";
  if (problem !== null) find("message").textContent = text(problem, about);
  find("result").hidden = shown === null;
  if (shown === null) return;
  find("picture").src = shown.url;
  find("picture").alt = text("given");
  find("given").className = shown.truth === null ? "" : "example";
  find("caption").textContent = shown.truth === null ? shown.name : text("truth", shown.truth);
  find("answers").replaceChildren();
  for (const answer of shown.answers) showAnswer(find("answers"), answer);
}

function fail(name) {
  problem = name;
  if (shown) URL.revokeObjectURL(shown.url);
  shown = null;
  render();
}

async function ask(path, body, url, name) {
  last = [path, body, url, name];
  const number = ++latest;
  find("message").hidden = false;
  find("message").className = "";
  find("message").textContent = text("working");
  document.querySelector("main").classList.add("busy");
  let found;
  try {
    const response = await fetch(find("invert").checked ? `${path}?invert` : path, { method: "POST", body });
    found = await response.json();
  } catch {
    found = { error: "gone" };
  }
  if (number !== latest) return;
  document.querySelector("main").classList.remove("busy");
  if (found.error) return fail(found.error);
  if (shown) URL.revokeObjectURL(shown.url);
  problem = null;
  shown = { ...found, url: url ?? URL.createObjectURL(body), name };
  render();
}

function predict(blob) {
  if (blob.size > about.max_bytes) return fail("bytes");
  return ask("predict", blob, undefined, blob.name ?? "");
}

function closeCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  find("live").hidden = true;
}

async function openCamera() {
  closeCamera();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch {
    return fail("no_camera");
  }
  find("video").srcObject = stream;
  find("live").hidden = false;
  await find("video").play();
}

function shoot() {
  const video = find("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  closeCamera();
  canvas.toBlob((blob) => blob && predict(blob), "image/png");
}

find("invert").onchange = () => last && ask(...last);
find("choose").onclick = () => find("file").click();
find("file").onchange = () => {
  if (find("file").files.length) predict(find("file").files[0]);
  find("file").value = ""; // so that the same file can be chosen again
};
find("camera").onclick = openCamera;
find("shoot").onclick = shoot;
find("stop").onclick = closeCamera;
document.ondragover = (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
};
document.ondragleave = () => find("drop").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  if (event.dataTransfer.files.length) predict(event.dataTransfer.files[0]);
};
document.onpaste = (event) => {
  if (event.clipboardData.files.length) predict(event.clipboardData.files[0]);
};
for (const button of document.querySelectorAll("[data-language]"))
  button.onclick = () => {
    language = button.dataset.language;
    render();
  };

render();
fetch("about").then((response) => response.json()).then((found) => {
  about = found;
  document.title = `agebench: ${about.runs.join(", ")}`;
  find("examples").hidden = about.examples.length === 0;
  about.examples.forEach((label, i) => {
    const button = element(find("strip"), "button");
    button.type = "button";
    button.title = label;
    const image = element(button, "img");
    image.src = `example/${i}`;
    image.alt = label;
    button.onclick = () => ask(`example/${i}`, null, `example/${i}`, label);
  });
});
