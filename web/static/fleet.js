// The page `fleet`: takes over what the server rendered, and keeps it true by the events of the fleet.
import { follow } from "./shell.js";

follow({ draw() {} });
