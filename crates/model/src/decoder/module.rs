//! The linear layers of a decoder layer, and their names.

/// The linear layers of a decoder layer, in the order that they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// `self_attn.q_proj`
    Q,
    /// `self_attn.k_proj`
    K,
    /// `self_attn.v_proj`
    V,
    /// `self_attn.o_proj`
    O,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
    /// `self_attn.qkv_proj`: queries, keys and values in one tensor of a file. It computes as its parts.
    Qkv,
    /// `mlp.gate_up_proj`: gate and up in one tensor of a file. It computes as its parts.
    GateUp,
}

impl Module {
    /// All that compute, in order.
    pub const ALL: [Module; 7] =
        [Module::Q, Module::K, Module::V, Module::O, Module::Gate, Module::Up, Module::Down];

    /// The name within a layer, as in checkpoints.
    pub fn path(self) -> &'static str {
        match self {
            Module::Q => "self_attn.q_proj",
            Module::K => "self_attn.k_proj",
            Module::V => "self_attn.v_proj",
            Module::O => "self_attn.o_proj",
            Module::Gate => "mlp.gate_proj",
            Module::Up => "mlp.up_proj",
            Module::Down => "mlp.down_proj",
            Module::Qkv => "self_attn.qkv_proj",
            Module::GateUp => "mlp.gate_up_proj",
        }
    }

    /// The last part of [`path`](Module::path), as in `target_modules`.
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.split_once('.').map_or(path, |(_, name)| name)
    }

    /// The module with this [`name`](Module::name).
    pub fn from_name(name: &str) -> Option<Self> {
        let all = Module::ALL.into_iter().chain([Module::Qkv, Module::GateUp]);
        all.into_iter().find(|module| module.name() == name)
    }

    /// The modules that compute in its place, in the order of its rows.
    pub fn parts(self) -> &'static [Module] {
        match self {
            Module::Q => &[Module::Q],
            Module::K => &[Module::K],
            Module::V => &[Module::V],
            Module::O => &[Module::O],
            Module::Gate => &[Module::Gate],
            Module::Up => &[Module::Up],
            Module::Down => &[Module::Down],
            Module::Qkv => &[Module::Q, Module::K, Module::V],
            Module::GateUp => &[Module::Gate, Module::Up],
        }
    }
}
