# Files that must be there whole or not at all: written beside their place and renamed. Against a killed process that is enough. Against a power cut
# it is not, because base R cannot ask the disk to write; `durable` asks the system's `sync`, where there is one.

# Keys, certificates and invitations are a few kilobytes; what is longer is something else.
MAX_SECRET <- 64 * 1024

write_whole <- function(path, data, mode = "600") {
  if (is.character(data)) data <- charToRaw(enc2utf8(data))
  folder <- dirname(path)
  make_folder(folder)
  draft <- tempfile(paste0(".", basename(path), "."), folder)
  on.exit(unlink(draft))
  before <- Sys.umask("077")
  written <- tryCatch(writeBin(data, draft), error = identity, finally = Sys.umask(before))
  if (inherits(written, "error") || !file.rename(draft, path)) {
    trust_stop(paste(path, "cannot be written"),
               remedy = "Choose a folder on a local disk with room, which this user may write to")
  }
  invisible(path)
}

make_folder <- function(folder) {
  if (!dir.exists(folder) && !dir.create(folder, recursive = TRUE, mode = "0700", showWarnings = FALSE) &&
        !dir.exists(folder)) {
    trust_stop(paste("the folder", folder, "cannot be made"), remedy = "Choose one that this user may write to")
  }
  invisible(folder)
}

read_whole <- function(path, most = Inf) {
  size <- file.size(path)
  if (is.na(size)) trust_stop(paste(path, "cannot be read"))
  if (size > most) trust_stop(paste(path, "is longer than it can be"))
  readBin(path, "raw", size)
}

# The bytes of a secret. Its group may read it, because orchestrators mount secrets so; the world may not.
read_secret <- function(path, remedy = "") {
  if (!file.exists(path)) trust_stop(paste(path, "is missing"), remedy = remedy)
  mode <- as.integer(file.mode(path))
  if (.Platform$OS.type == "unix" && bitwAnd(mode, 7L) != 0L) {
    trust_stop(paste("everyone on this machine can read", path), remedy = paste("chmod 600", path))
  }
  read_whole(path, MAX_SECRET)
}

# Ask the system to write a file to its disk. Where it has no `sync` for single files, a power cut can take the last seconds.
durable <- function(path) {
  if (nzchar(Sys.which("sync"))) {
    suppressWarnings(system2("sync", shQuote(path), stdout = FALSE, stderr = FALSE))
  }
  invisible(path)
}

# One process in a folder. A process that was killed leaves its number behind; whose process has gone, the folder is free.
alone <- function(folder) {
  make_folder(folder)
  path <- file.path(folder, "process.lock")
  if (file.exists(path)) {
    other <- suppressWarnings(as.integer(readLines(path, n = 1L, warn = FALSE)))
    if (length(other) == 1L && !is.na(other) && other != Sys.getpid() && process_lives(other)) {
      haina_stop(paste0("another process (", other, ") is running in ", folder),
                 remedy = "End it, or name another folder (folder = )")
    }
  }
  write_whole(path, paste0(Sys.getpid(), "\n"))
  function() unlink(path)
}

process_lives <- function(pid) {
  command <- file.path("/proc", pid, "comm")
  if (dir.exists("/proc/self")) {
    # Numbers are used again: another programme of this number is not R.
    return(file.exists(command) && grepl("^R(script|term)?$", tryCatch(readLines(command, n = 1L), error = function(e) "")))
  }
  isTRUE(tools::pskill(pid, 0L))
}
