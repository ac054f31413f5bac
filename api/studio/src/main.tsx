import { render } from "preact";
import { App } from "./screens/app";
import { startReading } from "./state/store";

startReading();
render(<App />, document.getElementById("studio")!);
