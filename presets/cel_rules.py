"""The rules that an API server can check by itself, as CEL; as ``presets.rules`` and ``rules_update`` have them.

Core CEL only, for Kubernetes 1.25 and later (``x-kubernetes-validations``). What they cannot see (the catalogue, the
ConfigMap, annotations, time zones, memory), or could not afford (where in a URL its host is a private address), is
checked by the controller, at once, and told as ``Planned=False``. That both say the same is tested object by object
(tests/contract/test_cel_rules.py).
"""

from presets.cel_forms import (
    A_URL,
    ANY_IMAGE,
    CRON,
    IMAGE,
    MACHINE,
    OBJECT_NAME,
    RESERVED,
    CelRule,
    each_adapter,
    exactly_one,
    image_and_secrets,
    preset_rules,
    same_in_any_case,
    unchanged,
)

RULES: tuple[CelRule, ...] = (
    # A Service will have this name.
    CelRule(
        "",
        "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",
        "metadata.name",
        "Use lower-case letters, digits and dashes, 63 at most, a letter first, such as tune-phi-3.",
    ),
    CelRule(
        "",
        "has(self.tuning) || has(self.inference)",
        "tuning",
        "Either tuning or inference must be given, not neither.",
    ),
    CelRule(
        "",
        "!(has(self.tuning) && has(self.inference))",
        "inference",
        "Either tuning or inference may be given, not both.",
    ),
    CelRule("", "has(self.tuning) == has(oldSelf.tuning)", "tuning", "tuning cannot be added or removed."),
    CelRule("", "has(self.inference) == has(oldSelf.inference)", "inference", "inference cannot be added or removed."),
    CelRule("", "has(self.resource) == has(oldSelf.resource)", "resource", "resource cannot be added or removed."),
    CelRule(
        "",
        "!has(self.tuning) || !has(self.resource) || !has(self.resource.count) || self.resource.count == 1",
        "resource.count",
        "Tuning runs on one node: count must be 1.",
    ),
    CelRule(
        "",
        "!has(self.tuning) || !has(self.resource) || !has(self.resource.partition)",
        "resource.partition",
        "GPU partitions are not supported for tuning.",
    ),
    unchanged("resource", "count"),
    unchanged("resource", "labelSelector"),
    unchanged("resource", "partition"),
    CelRule(
        "resource",
        f"!has(self.instanceType) || self.instanceType == '' || self.instanceType.matches('{MACHINE}')",
        "instanceType",
        "This is no name of a machine: letters, digits, dots, dashes and underscores.",
    ),
    CelRule(
        "resource",
        "!has(oldSelf.instanceType) || oldSelf.instanceType == ''"  # where none was named, one may be
        f" || (has(self.instanceType) && {same_in_any_case('instanceType')})",
        "instanceType",
        "resource.instanceType cannot be changed once the Workspace is there.",
    ),
    CelRule(
        "resource.labelSelector",
        "!has(self.matchExpressions)"
        " || self.matchExpressions.all(e, e.operator == 'In' && has(e.values) && size(e.values) == 1)",
        "matchExpressions",
        "Use matchLabels, or operator In with one value.",
    ),
    CelRule(
        "resource.labelSelector",
        "!has(self.matchLabels) || size(self.matchLabels) == 0"
        " || !self.matchLabels.all(k, k.startsWith('kaito.sh/') || k.startsWith('karpenter.kaito.sh/'))",
        "matchLabels",
        "Add a label of your own: all of these are reserved ones.",
    ),
    CelRule(
        "tuning", "has(self.preset)", "preset", "Name the model to tune: preset: {name: phi-3-mini-128k-instruct}."
    ),
    CelRule(
        "tuning",
        "has(self.method) && self.method.matches('(?i)^(lora|qlora)$')",
        "method",
        "Choose method: qlora (4-bit base) or method: lora.",
    ),
    CelRule("tuning", "has(self.input)", "input", "Say where the dataset is: input: {urls: [https://...]}."),
    CelRule(
        "tuning",
        "has(self.output)",
        "output",
        "Say where the adapter goes: output: {image: ..., imagePushSecret: ...}.",
    ),
    unchanged("tuning", "preset"),
    CelRule(
        "tuning",
        f"!has(self.method) || !has(oldSelf.method) || {same_in_any_case('method')}",
        "method",
        "tuning.method cannot be changed once the Workspace is there.",
    ),
    exactly_one("tuning.input", "urls", "volumeSource", "image"),
    unchanged("tuning.input", "name"),
    exactly_one("tuning.output", "image", "volumeSource"),
    CelRule(
        "tuning.output",
        f"!has(self.image) || self.image == '' || self.image.matches('{IMAGE}')",
        "image",
        "Write registry/repository:tag, in lower case, without a digest.",
    ),
    CelRule(
        "tuning.output",
        f"!has(self.image) || !self.image.matches('{RESERVED}')",
        "image",
        "The tag is one of kaiflow's own: name one that does not begin with kaiflow- or sha256-.",
    ),
    CelRule(
        "tuning.output",
        "!has(self.image) || self.image == '' || (has(self.imagePushSecret) && self.imagePushSecret != '')",
        "imagePushSecret",
        "Pushing an image needs a Secret of type kubernetes.io/dockerconfigjson.",
    ),
    CelRule(
        "tuning.output",
        f"!has(self.imagePushSecret) || self.imagePushSecret == '' || self.imagePushSecret.matches('{OBJECT_NAME}')",
        "imagePushSecret",
        "This is not the name of a Secret: lower-case letters, digits, dashes and dots.",
    ),
    *preset_rules("tuning.preset"),
    CelRule(
        "tuning",
        f"!has(self.config) || self.config == '' || self.config.matches('{OBJECT_NAME}')",
        "config",
        "This is not the name of a ConfigMap: lower-case letters, digits, dashes and dots.",
    ),
    CelRule(
        "tuning.input",
        f"!has(self.urls) || self.urls.all(u, ({A_URL}) && !u.contains(' '))",
        "urls",
        "A dataset URL uses https, http, hf, s3, gs or az, and holds no white space.",
    ),
    *image_and_secrets("tuning.input"),
    CelRule(
        "tuning.schedule",
        f"self.cron.matches('{CRON}')",
        "cron",
        'Write five fields (minute hour day-of-month month day-of-week), such as "0 3 * * 0", or @weekly.',
    ),
    CelRule(
        "tuning.schedule",
        "!has(self.timezone) || self.timezone.matches('^[A-Za-z0-9_+/-]+$')",
        "timezone",
        "Use a name of the tz database, such as Europe/Prague or Etc/UTC.",
    ),
    CelRule(
        "tuning.evaluation",
        "!(has(self.gate) && self.gate == 'enforce' && has(self.split) && self.split == 0.0)",
        "split",
        "gate: enforce needs held-out rows, and split is 0.",
    ),
    CelRule(
        "tuning.deploy",
        "!has(self.runtime) || self.runtime != 'vllm'",
        "runtime",
        "This version serves by transformers, on a GPU too: set runtime to auto.",
    ),
    CelRule(
        "inference",
        "has(self.preset) != has(self.template)",
        "",
        "Exactly one of preset and template must be given.",
    ),
    unchanged("inference", "preset"),
    CelRule(
        "inference",
        "has(self.template) == has(oldSelf.template)",
        "template",
        "inference.template cannot be added or removed once the Workspace is there.",
    ),
    *preset_rules("inference.preset"),
    CelRule(
        "inference",
        "!has(self.adapters) || size(self.adapters) <= 10",
        "adapters",
        "Name 10 adapters at most.",
    ),
    each_adapter("has(a.source)", "An adapter has no source: name an image."),
    each_adapter(
        f"!has(a.source) || (has(a.source.name) && a.source.name.matches('{OBJECT_NAME}'))",
        "An adapter has no name that is one: lower-case letters, digits, dashes and dots.",
    ),
    each_adapter(
        "!has(a.source) || !has(a.source.name)"
        " || self.adapters.exists_one(b, has(b.source) && has(b.source.name) && b.source.name == a.source.name)",
        "Two adapters have the same name.",
    ),
    each_adapter(
        "!has(a.source) || !has(a.source.urls) || size(a.source.urls) == 0",
        "An adapter cannot come from URLs: name an image.",
    ),
    each_adapter(
        "!has(a.source) || ((has(a.source.image) && a.source.image != '') != has(a.source.volumeSource))",
        "Of each adapter exactly one of image and volumeSource must be given.",
    ),
    each_adapter(
        f"!has(a.source) || !has(a.source.image) || a.source.image == '' || a.source.image.matches('{ANY_IMAGE}')",
        "The image of an adapter is not one: write registry/repository:tag, in lower case.",
    ),
    each_adapter(
        "!has(a.strength) || a.strength.matches('^[+]?[0-9]*[.]?[0-9]*([eE][-+]?[0-9]+)?$')",
        "The strength of an adapter is a number from 0 to 1.",
    ),
)
