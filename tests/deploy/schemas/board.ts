// A dashboard of the panels that we use, in the types of Grafana's own package @grafana/schema: what from_grafana.py
// makes a JSON schema of. Grafana's type of a panel leaves its options open, so that each kind is named here.

import type { Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel, VariableModel } from "@grafana/schema/dist/types/raw/dashboard/x/types.gen";
import type * as heatmap from "@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen";
import type * as stat from "@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen";
import type * as timeseries from "@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen";

interface Fields<Custom> extends Omit<FieldConfigSource, "defaults"> {
  defaults: Omit<FieldConfig, "custom"> & { custom?: Partial<Custom> };
}

interface Of<Type extends string, Options, Custom> extends Omit<Panel, "type" | "options" | "fieldConfig"> {
  type: Type;
  options?: Options;
  fieldConfig?: Fields<Custom>;
}

type Shown =
  | RowPanel
  | Of<"heatmap", heatmap.Options, heatmap.FieldConfig>
  | Of<"stat", stat.Options, Record<string, never>>
  | Of<"timeseries", timeseries.Options, timeseries.FieldConfig>;

// Grafana's type of a variable leaves out what only intervals have. Its type of version 2 has these.
interface Variable extends VariableModel {
  auto?: boolean;
  auto_count?: number;
  auto_min?: string;
}

export interface Board extends Omit<Dashboard, "panels" | "templating"> {
  panels?: Shown[];
  templating?: { list?: Variable[] };
}
