// Numbers as people read them.

/** 12345 -> "12,345". */
export const count = (n: number): string => Math.round(n).toLocaleString('en-GB')

/** Seconds -> "4.2 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '–'
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

/** Bytes -> "1.5 GiB". */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024
    unit += 1
  }
  return `${unit === 0 ? n : n.toFixed(1)} ${units[unit]}`
}

/** Bytes a second -> "6.9 GB/s", decimal as drives and memory are sold. */
export function bandwidth(n: number): string {
  if (n === 0) return '0 GB/s'
  return n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB/s` : `${Math.round(n / 1e6)} MB/s`
}

/** Three significant digits at most: 0.123, 4.56, 78.9, 123. */
export function rate(n: number): string {
  if (!Number.isFinite(n)) return '–'
  if (n === 0) return '0'
  if (n >= 99.95) return Math.round(n).toLocaleString('en-GB')
  if (n >= 9.995) return n.toFixed(1)
  return n.toFixed(n >= 0.995 ? 2 : 3)
}

/** 0.345 -> "35 %". */
export const percent = (share: number): string => `${Math.round(share * 100)} %`
