//! What the command line says.

/// A target, and the files that are named.
#[derive(Default)]
pub struct Options {
    pub target: String,
    pub ca: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub token_file: Option<String>,
}

impl Options {
    /// Reads the command line; `None` if it is none.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options::default();
        for argument in arguments {
            let place = match argument.split_once('=') {
                Some(("--ca", _)) => &mut options.ca,
                Some(("--certificate", _)) => &mut options.certificate,
                Some(("--key", _)) => &mut options.key,
                Some(("--token-file", _)) => &mut options.token_file,
                _ if options.target.is_empty() && !argument.starts_with('-') => {
                    options.target = argument;
                    continue;
                }
                _ => return None,
            };
            *place = argument.split_once('=').map(|(_, file)| file.to_string());
        }
        (!options.target.is_empty()).then_some(options)
    }
}
