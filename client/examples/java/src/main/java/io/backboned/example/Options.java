package io.backboned.example;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** What the command line says: a target, and files by the names of their options. */
record Options(String target, Map<String, String> files) {
  private static final Set<String> NAMES = Set.of("--ca", "--certificate", "--key", "--token-file");

  /** Reads the command line; empty if it is none. */
  static Optional<Options> parse(String[] arguments) {
    String target = null;
    var files = new HashMap<String, String>();
    for (String argument : arguments) {
      String[] words = argument.split("=", 2);
      if (words.length == 2 && NAMES.contains(words[0])) {
        files.put(words[0], words[1]);
      } else if (target != null || argument.startsWith("-")) {
        return Optional.empty();
      } else {
        target = argument;
      }
    }
    return Optional.ofNullable(target).map(found -> new Options(found, files));
  }

  /** Gives TLS if there is a CA. */
  ChannelCredentials credentials() throws IOException {
    if (!files.containsKey("--ca")) {
      return InsecureChannelCredentials.create();
    }
    var tls = TlsChannelCredentials.newBuilder().trustManager(new File(files.get("--ca")));
    if (files.containsKey("--certificate") && files.containsKey("--key")) {
      tls.keyManager(new File(files.get("--certificate")), new File(files.get("--key")));
    }
    return tls.build();
  }

  /**
   * Lets the token go with each call: through TLS, or to a Unix socket, since whoever reads it can
   * use it.
   */
  void addToken(Metadata headers) throws IOException {
    if (!files.containsKey("--token-file")) {
      return;
    }
    if (!files.containsKey("--ca") && !target.startsWith("unix:")) {
      throw new IllegalArgumentException("a token needs --ca, or a target unix:/path");
    }
    headers.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
        "Bearer " + Files.readString(Path.of(files.get("--token-file"))).strip());
  }
}
