/** scope.mjs: opens a model in a shared worker and in a service worker, and answers with the error. */
import { Model } from "../dist/index.js";

const ask = () => Model.open("/models/gemma3.bin").then(() => "opened", (e) => `${e.name}: ${e.status}: ${e.message}`);
self.onconnect = ({ ports: [port] }) => ask().then((answer) => port.postMessage(answer));
self.onmessage = ({ source }) => ask().then((answer) => source?.postMessage(answer));
self.oninstall = () => self.skipWaiting();
